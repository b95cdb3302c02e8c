//! Another version of a definition: the text with `version`, `epoch`, checksums and commits changed in their places, and
//! everything else, comments and layout, as it is.

use std::io::{self, Read};
use std::sync::Arc;

use sha2::{Digest, Sha256, Sha512};

use super::pipelines::PipelineSet;
use super::{CompileOptions, Compiled, inspect};
use crate::apk::version::Version;
use crate::arch::Arch;
use crate::melange::fetches::ChecksumAlgorithm;
use crate::melange::plan::PlanStep;
use crate::text::diagnostics::{Diagnostic, Diagnostics, Position, Source};
use crate::text::yaml::{self, Node, Value};

/// How much of a source is read at a time.
const READ_BYTES: usize = 1 << 20;

/// What a definition shall be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BumpRequest {
    /// The version of the package.
    pub version: String,
    /// The commit that its `git-checkout` steps expect, when they expect one.
    pub expected_commit: Option<String>,
}

impl BumpRequest {
    /// Another version, or the same, of which the epoch is raised.
    pub fn new(version: impl Into<String>) -> Self {
        Self { version: version.into(), expected_commit: None }
    }
}

/// A definition with another version, whose checksums are those of the version before.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Bumped {
    /// The text so far.
    pub text: String,
    /// The epoch that it says.
    pub epoch: u64,
    /// What its steps fetch by a checksum, which must be told anew.
    pub sources: Vec<BumpedSource>,
    /// How many commits were changed.
    pub commits: usize,
}

/// A source that a step fetches by checksums.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BumpedSource {
    /// Where from, variables replaced.
    pub uri: String,
    /// The checksums that the definition says, and where.
    places: Vec<(ChecksumAlgorithm, Position)>,
}

/// The checksums of a source in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDigests {
    /// SHA-256.
    pub sha256: String,
    /// SHA-512.
    pub sha512: String,
}

impl SourceDigests {
    /// The checksums of what a reader gives, which is read once.
    ///
    /// # Errors
    /// The reader's.
    pub fn of(mut reader: impl Read) -> io::Result<Self> {
        let (mut sha256, mut sha512) = (Sha256::new(), Sha512::new());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            sha256.update(read);
            sha512.update(read);
        }
        Ok(Self { sha256: hex::encode(sha256.finalize()), sha512: hex::encode(sha512.finalize()) })
    }
}

impl Bumped {
    /// The text with the checksums of its sources, one for each of [`Self::sources`], in order.
    pub fn with_digests(&self, digests: &[SourceDigests]) -> String {
        let mut text = self.text.clone();
        for (source, digest) in self.sources.iter().zip(digests) {
            for (algorithm, at) in &source.places {
                let new = match algorithm {
                    ChecksumAlgorithm::Sha256 => &digest.sha256,
                    ChecksumAlgorithm::Sha512 => &digest.sha512,
                };
                replace(&mut text, *at, new);
            }
        }
        text
    }
}

/// Changes the version of a definition: `version` is written in double quotes, `epoch` becomes 0, or one more for the
/// version that it has. Checksums of the main pipeline's `fetch` steps that are there are told with the addresses of the new
/// version, unless they are variables. `expected-commit` of `git-checkout` steps of the main pipeline is changed where one is
/// given and the definition says one that is no variable; of several steps in those that follow the version: whose `tag` is
/// made of it, or which have none.
///
/// # Errors
/// Mistakes of the definition, a version that apk cannot compare, a commit that is none, a definition that says no version.
pub fn bump(
    source: &Arc<Source>,
    request: &BumpRequest,
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
) -> Result<Bumped, Diagnostics> {
    let fail = |at: Position, message: String, hint: &str| {
        Diagnostics(vec![Diagnostic::new(source, at, message).hint(hint.to_owned())])
    };
    let begin = Position { line: 1, column: 1 };
    let root = yaml::read(source).map_err(|mistake| Diagnostics(vec![mistake]))?;
    let package = root.as_ref().and_then(|root| field(root, "package"));
    let version = package.and_then(|package| field(package, "version"));
    let Some((package, version)) = package.zip(version).filter(|(_, version)| version.scalar().is_some())
    else {
        return Err(fail(begin, "the definition says no version".to_owned(), "add `package.version`"));
    };
    let epoch_before = field(package, "epoch");
    if Version::parse(&format!("{}-r0", request.version)).is_none() {
        let message = format!("{:?} is not an apk version", request.version);
        return Err(fail(version.at, message, "a version looks like `1.2.3`, `1.2a` or `1.2_rc1`"));
    }
    if let Some(commit) = &request.expected_commit
        && (!matches!(commit.len(), 40 | 64) || !commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        let message = format!("{commit:?} is no commit");
        return Err(fail(begin, message, "a commit has 40 hexadecimal digits"));
    }
    let known = epoch_before.and_then(Node::scalar).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let same = version.scalar() == Some(request.version.as_str());
    let epoch = if same { known.saturating_add(1) } else { 0 };
    let mut text = source.text.clone();
    // From the end to the beginning, so that places before a change stay what they are.
    let mut edits = vec![(version.at, format!("\"{}\"", request.version))];
    match epoch_before {
        Some(node) => edits.push((node.at, epoch.to_string())),
        None => return Err(fail(package.at, "the package has no `epoch`".to_owned(), "add `epoch: 0`")),
    }
    let commits = commit_places(root.as_ref(), pipeline(root.as_ref()));
    let commit = request.expected_commit.as_ref();
    edits.extend(commit.into_iter().flat_map(|commit| commits.iter().map(|at| (*at, commit.clone()))));
    edits.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    edits.iter().for_each(|(at, new)| replace(&mut text, *at, new));

    let bumped = Source::new(source.name.as_str(), text.as_str());
    let plan = match inspect(&bumped, arch, pipelines, options)? {
        Compiled::Plan(plan) => plan,
        Compiled::Skipped { reason, .. } => {
            let message = format!("its sources are not known for {arch}: {reason}");
            return Err(fail(begin, message, "give an architecture that it is for with `--arch`"));
        }
    };
    let root = yaml::read(&bumped).map_err(|mistake| Diagnostics(vec![mistake]))?;
    let sources = sources(root.as_ref(), &plan.package.pipeline);
    Ok(Bumped { text, epoch, sources, commits: if commit.is_some() { commits.len() } else { 0 } })
}

/// What the steps of a pipeline fetch by checksums, the last one first: changed in this order, places before a change stay
/// what they are.
fn sources(root: Option<&Node>, planned: &[PlanStep]) -> Vec<BumpedSource> {
    let algorithms = [ChecksumAlgorithm::Sha256, ChecksumAlgorithm::Sha512];
    let mut sources = Vec::new();
    for (step, planned) in pipeline(root).iter().zip(planned).rev() {
        if field(step, "uses").and_then(Node::scalar) != Some("fetch") {
            continue;
        }
        let Some(with) = field(step, "with") else { continue };
        let place = |name: &str| {
            let node = field(with, name)?;
            let value = node.scalar()?;
            (!value.is_empty() && !value.contains("${{")).then_some(node.at)
        };
        let mut places: Vec<_> = algorithms
            .into_iter()
            .filter_map(|algorithm| Some((algorithm, place(&format!("expected-{}", algorithm.name()))?)))
            .collect();
        places.sort_by_key(|(_, at)| std::cmp::Reverse(*at));
        let uri = planned.with.get("uri").cloned().unwrap_or_default();
        if !places.is_empty() && !uri.is_empty() {
            sources.push(BumpedSource { uri, places });
        }
    }
    sources
}

/// The steps of the main pipeline.
fn pipeline(root: Option<&Node>) -> &[Node] {
    match root.and_then(|root| field(root, "pipeline")).map(|node| &node.value) {
        Some(Value::List(steps)) => steps,
        _ => &[],
    }
}

/// A field of a map.
fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

/// Where the commits stand that follow the version.
fn commit_places(root: Option<&Node>, steps: &[Node]) -> Vec<Position> {
    let with = |step: &'_ Node| -> Option<(Option<String>, Position)> {
        if field(step, "uses")?.scalar()? != "git-checkout" {
            return None;
        }
        let with = field(step, "with")?;
        let commit = field(with, "expected-commit")?;
        commit.scalar().filter(|text| !text.is_empty() && !text.contains("${{"))?;
        let tag = field(with, "tag").and_then(Node::scalar).map(str::to_owned);
        Some((tag, commit.at))
    };
    let checkouts: Vec<_> = steps.iter().filter_map(with).collect();
    let all = steps
        .iter()
        .filter(|step| field(step, "uses").and_then(Node::scalar) == Some("git-checkout"))
        .count();
    let follows = |tag: &Option<String>| tag.as_ref().is_none_or(|tag| is_of_version(root, tag));
    checkouts.iter().filter(|(tag, _)| all == 1 || follows(tag)).map(|(_, at)| *at).collect()
}

/// Whether a text is made of the version, directly or by way of variables.
fn is_of_version(root: Option<&Node>, text: &str) -> bool {
    let compact: String = text.split_whitespace().collect();
    if compact.contains("${{package.version}}") || compact.contains("${{package.full-version}}") {
        return true;
    }
    let Some(root) = root else { return false };
    let made = |name: &str| compact.contains(&format!("${{{{vars.{name}}}}}"));
    let version = |node: Option<&Node>| {
        let text = node.and_then(Node::scalar).unwrap_or_default();
        text.split_whitespace().collect::<String>().contains("${{package.version}}")
    };
    let transforms = match field(root, "var-transforms").map(|node| &node.value) {
        Some(Value::List(transforms)) => transforms.as_slice(),
        _ => &[],
    };
    let by_transform = transforms.iter().any(|transform| {
        let to = field(transform, "to").and_then(Node::scalar).unwrap_or_default();
        made(to) && version(field(transform, "from"))
    });
    let by_variable = match field(root, "vars").map(|node| &node.value) {
        Some(Value::Map(entries)) => entries.iter().any(|(key, node)| made(&key.text) && version(Some(node))),
        _ => false,
    };
    by_transform || by_variable
}

/// Replaces the scalar that begins at a place; in quotes it keeps them, unless the new one brings its own.
fn replace(text: &mut String, at: Position, new: &str) {
    let found = (|| {
        let begin = at.offset_in(text)?;
        let rest = text[begin..].split_inclusive('\n').next()?;
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let end = match quote {
            Some(quote) => rest.get(1..)?.find(quote)? + 2,
            None => {
                rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']')).unwrap_or(rest.len())
            }
        };
        Some((begin..begin + end, quote))
    })();
    let Some((range, quote)) = found else { return };
    let new = match quote {
        Some(quote) if !new.starts_with('"') => format!("{quote}{new}{quote}"),
        _ => new.to_owned(),
    };
    text.replace_range(range, &new);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\npackage:\n  name: a\n  version: 1.0 # the version\n  epoch: 3\n\nvar-transforms:\n  \
        - from: ${{package.version}}\n    match: \\.\n    replace: _\n    to: mangled\n\npipeline:\n  - uses: fetch\n    \
        with:\n      uri: https://x.org/a-${{package.version}}.tar.gz\n      expected-sha256: 'aa'\n      \
        expected-sha512: bb   # both\n\n  - uses: git-checkout\n    with: {repository: https://x.org/a, tag: \
        \"v${{vars.mangled}}\", expected-commit: 1111111111111111111111111111111111111111}\n  - uses: git-checkout\n    with:\n      \
        repository: https://x.org/b\n      tag: fixed\n      expected-commit: \
        \"2222222222222222222222222222222222222222\"\n  - runs: |\n      echo 1.0\n";

    fn bumped(text: &str, request: &BumpRequest) -> Result<Bumped, String> {
        let source = Source::new("a.yaml", text);
        let made = bump(&source, request, Arch::X86_64, &PipelineSet::default(), &CompileOptions::default());
        made.map_err(|mistakes| mistakes.to_string())
    }

    fn digests(letter: &str) -> SourceDigests {
        SourceDigests { sha256: letter.repeat(64), sha512: letter.repeat(128) }
    }

    #[test]
    fn only_what_follows_the_version_changes() {
        let mut request = BumpRequest::new("1.2");
        request.expected_commit = Some("3".repeat(40));
        let made = bumped(TEXT, &request).unwrap();
        assert_eq!((made.epoch, made.commits, made.sources.len()), (0, 1, 1));
        assert_eq!(made.sources[0].uri, "https://x.org/a-1.2.tar.gz");
        let expected = TEXT
            .replace("version: 1.0 #", "version: \"1.2\" #")
            .replace("epoch: 3", "epoch: 0")
            .replace(&"1".repeat(40), &"3".repeat(40))
            .replace("'aa'", &format!("'{}'", "c".repeat(64)))
            .replace("bb   #", &format!("{}   #", "c".repeat(128)));
        assert_eq!(made.with_digests(&[digests("c")]), expected);
    }

    #[test]
    fn checksums_are_those_of_the_bytes() {
        let told = SourceDigests::of(&b"abc"[..]).unwrap();
        assert!(told.sha256.starts_with("ba7816bf") && told.sha256.ends_with("f20015ad"));
        assert!(told.sha512.starts_with("ddaf35a1") && told.sha512.ends_with("a54ca49f"));
    }

    #[test]
    fn the_same_version_is_another_epoch() {
        let made = bumped(TEXT, &BumpRequest::new("1.0")).unwrap();
        assert_eq!((made.epoch, made.commits), (4, 0));
        assert_eq!(
            made.text,
            TEXT.replace("version: 1.0 #", "version: \"1.0\" #").replace("epoch: 3", "epoch: 4")
        );
        let quoted = TEXT.replace("version: 1.0 #", "version: '1.0' #");
        let made = bumped(&quoted, &BumpRequest::new("2.0")).unwrap();
        assert!(made.text.contains("  version: \"2.0\" # the version\n"), "{}", made.text);
    }

    #[test]
    fn several_sources_have_their_own_checksums() {
        let step = "  - uses: fetch\n    with:\n      expected-sha256: aa\n      uri: https://x.org/b-${{package.version}}.tar\n";
        let made = bumped(&format!("{TEXT}{step}"), &BumpRequest::new("2")).unwrap();
        let uris: Vec<&str> = made.sources.iter().map(|source| source.uri.as_str()).collect();
        assert_eq!(uris, ["https://x.org/b-2.tar", "https://x.org/a-2.tar.gz"]);
        let text = made.with_digests(&[digests("b"), digests("a")]);
        assert!(text.contains(&format!("expected-sha256: {}\n      uri", "b".repeat(64))), "{text}");
        assert!(text.contains(&format!("expected-sha256: '{}'", "a".repeat(64))), "{text}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        for (text, version, expected) in [
            (TEXT, "v1", "\"v1\" is not an apk version"),
            ("package:\n  name: a\n", "1", "says no version"),
            ("package:\n  name: a\n  version: 1\n", "2", "no `epoch`"),
            ("- a\n", "1", "says no version"),
            ("a: [", "1", "not valid YAML"),
        ] {
            let refused = bumped(text, &BumpRequest::new(version)).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
        let mut request = BumpRequest::new("2");
        request.expected_commit = Some("main".to_owned());
        assert!(bumped(TEXT, &request).unwrap_err().contains("is no commit"));
    }
}
