//! What the steps of a plan fetch by a checksum: such a source is the same wherever it comes from, so that it may be
//! fetched before the steps run, by somebody else.

use std::fmt;

use super::plan::PlanStep;
use crate::limits;

/// How a checksum is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChecksumAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl ChecksumAlgorithm {
    /// Its name in keys and names of files: `sha256` or `sha512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// The digits of a checksum in hex.
    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The checksum that names a source.
///
/// ```
/// use melange_remote_sdk::melange::fetches::{ChecksumAlgorithm::Sha256, SourceChecksum};
/// let checksum = SourceChecksum::new(Sha256, &"AB".repeat(32)).unwrap();
/// assert_eq!(checksum.to_string(), format!("sha256:{}", "ab".repeat(32)));
/// assert!(SourceChecksum::new(Sha256, "../../etc/passwd").is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceChecksum {
    algorithm: ChecksumAlgorithm,
    hex: String,
}

impl SourceChecksum {
    /// A checksum from its digits; `None` when they are not as many hex digits as the algorithm makes.
    pub fn new(algorithm: ChecksumAlgorithm, digits: &str) -> Option<Self> {
        let is_whole =
            digits.len() == algorithm.digits() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_whole.then(|| Self { algorithm, hex: digits.to_ascii_lowercase() })
    }

    /// How it was made.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// Its digits in lower-case hex.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for SourceChecksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// A source that steps fetch: what it is, and where it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// What names it; no two of a list are equal.
    pub checksum: SourceChecksum,
    /// Where steps fetch it from, as the definition says, in the order of the steps; at most
    /// [`limits::FETCH_URIS_MAX`].
    pub uris: Vec<String>,
    /// The bytes that it may have.
    pub bytes_max: u64,
}

impl Fetch {
    /// A source at one place.
    pub fn new(checksum: SourceChecksum, uri: impl Into<String>) -> Self {
        Self { checksum, uris: vec![uri.into()], bytes_max: limits::FETCHED_SOURCE_BYTES_MAX }
    }

    /// What people call it: the last part of its first address.
    pub fn title(&self) -> &str {
        let path = self.uris.first().map_or("", |uri| uri.split(['?', '#']).next().unwrap_or_default());
        path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("a source")
    }
}

/// The sources that `steps` fetch by a checksum, each once, in the order of the steps; steps that do not run fetch
/// nothing.
pub fn fetches<'p>(steps: impl IntoIterator<Item = &'p PlanStep>) -> Vec<Fetch> {
    let mut found = Vec::new();
    steps.into_iter().for_each(|step| collect(step, &mut found));
    found
}

fn collect(step: &PlanStep, found: &mut Vec<Fetch>) {
    if !step.enabled {
        return;
    }
    if step.uses.split('/').filter(|part| !matches!(*part, "" | ".")).eq(["fetch"])
        && let Some((checksum, uri)) = named(step)
    {
        match found.iter_mut().find(|known| known.checksum == checksum) {
            Some(known) => {
                if known.uris.len() < limits::FETCH_URIS_MAX && !known.uris.contains(&uri) {
                    known.uris.push(uri);
                }
            }
            None => found.push(Fetch::new(checksum, uri)),
        }
    }
    step.pipeline.iter().for_each(|child| collect(child, found));
}

/// What a step of `fetch` fetches, and from where; the pipeline looks at the SHA-256 first, too.
fn named(step: &PlanStep) -> Option<(SourceChecksum, String)> {
    let given = |name: &str| step.with.get(name).filter(|value| !value.is_empty());
    let uri = given("uri")?.clone();
    let checksum = match (given("expected-sha256"), given("expected-sha512")) {
        (Some(digits), _) => SourceChecksum::new(ChecksumAlgorithm::Sha256, digits),
        (None, Some(digits)) => SourceChecksum::new(ChecksumAlgorithm::Sha512, digits),
        (None, None) => None,
    };
    Some((checksum?, uri))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::arch::Arch;
    use crate::melange::pipelines::PipelineSet;
    use crate::melange::{CompileOptions, Compiled, compile};
    use crate::text::diagnostics::Source;

    const DEFINITION: &str = r#"
package:
  name: zlib
  version: 1.3.1
  epoch: 0
vars:
  mirror: https://mirror.example/zlib
var-transforms:
  - from: ${{package.version}}
    match: \.
    replace: _
    to: underscored
environment:
  contents:
    packages: [busybox]
pipeline:
  - uses: fetch
    with:
      uri: ${{vars.mirror}}/zlib-${{vars.underscored}}.tar.gz
      expected-sha256: @A@
  - uses: ./fetch
    with:
      uri: https://zlib.example/zlib-${{package.version}}.tar.gz
      expected-sha256: @a@
  - uses: fetch
    with:
      uri: https://no.example/none
      expected-none: "true"
  - if: ${{build.arch}} == "never"
    pipeline:
      - uses: fetch
        with:
          uri: https://no.example/arch
          expected-sha256: @b@
  - uses: mine
    with:
      from: https://own.example
subpackages:
  - name: zlib-extra
    pipeline:
      - uses: fetch
        with:
          uri: https://own.example/both?x=/y
          expected-sha256: @d@
          expected-sha512: @e@
"#;

    const MINE: &str = "inputs:\n  from:\n    required: true\npipeline:\n  - uses: fetch\n    with:\n      \
                        uri: ${{inputs.from}}/${{package.name}}.zip\n      expected-sha512: @c@\n";

    fn with_sums(text: &str) -> String {
        text.replace("@A@", &"A".repeat(64))
            .replace("@a@", &"a".repeat(64))
            .replace("@b@", &"b".repeat(64))
            .replace("@c@", &"c".repeat(128))
            .replace("@d@", &"d".repeat(64))
            .replace("@e@", &"e".repeat(128))
    }

    #[test]
    fn what_steps_fetch_is_known_before_they_run() {
        let inline = BTreeMap::from([("mine.yaml".to_owned(), with_sums(MINE))]);
        let pipelines = PipelineSet::new(&inline).unwrap();
        let source = Source::new("zlib.yaml", with_sums(DEFINITION));
        let compiled = compile(&source, Arch::X86_64, &pipelines, &CompileOptions::default()).unwrap();
        let Compiled::Plan(plan) = compiled else { panic!("it is built for this architecture") };
        let found = fetches(plan.packages().flat_map(|package| &package.pipeline));
        let told: Vec<String> = found
            .iter()
            .map(|fetch| format!("{} {}", &fetch.checksum.to_string()[..10], fetch.uris.join(" ")))
            .collect();
        assert_eq!(
            told,
            [
                "sha256:aaa https://mirror.example/zlib/zlib-1_3_1.tar.gz https://zlib.example/zlib-1.3.1.tar.gz",
                "sha512:ccc https://own.example/zlib.zip",
                "sha256:ddd https://own.example/both?x=/y",
            ]
        );
        let titles: Vec<&str> = found.iter().map(Fetch::title).collect();
        assert_eq!(titles, ["zlib-1_3_1.tar.gz", "zlib.zip", "both"]);
    }

    #[test]
    fn addresses_of_one_source_are_bounded() {
        let step = |index: usize| PlanStep {
            uses: "fetch".to_owned(),
            enabled: true,
            with: BTreeMap::from([
                ("uri".to_owned(), format!("https://h/{index}")),
                ("expected-sha256".to_owned(), "a".repeat(64)),
            ]),
            ..PlanStep::default()
        };
        let steps: Vec<PlanStep> = (0..100).chain(0..100).map(step).collect();
        let found = fetches(&steps);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].uris.len(), limits::FETCH_URIS_MAX);
    }

    #[test]
    fn only_whole_checksums_name_a_source() {
        for digits in ["", "a", &"g".repeat(64), &"a".repeat(63), &"a".repeat(128), &"ä".repeat(32)] {
            assert_eq!(SourceChecksum::new(ChecksumAlgorithm::Sha256, digits), None, "{digits}");
        }
        assert!(SourceChecksum::new(ChecksumAlgorithm::Sha512, &"0".repeat(128)).is_some());
    }
}
