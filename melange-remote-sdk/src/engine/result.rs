//! What a result comes from: everything that a build may read has a part in its name.

use sha2::{Digest, Sha256};

use super::EngineBuilder;
use crate::builder::BuildInput;
use crate::error::Result;
use crate::job::{JobId, ResultDigest};
use crate::melange::plan::Plan;
use crate::rootfs::{self, Resolution};

/// Changes when the same input makes other packages than before; so does the version of this library.
const FORMAT: &str = concat!("result 2 ", env!("CARGO_PKG_VERSION"));

/// A digest of texts, each with its length.
struct Texts(Sha256);

impl Texts {
    fn put(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn all<'t>(&mut self, texts: impl ExactSizeIterator<Item = &'t str>) {
        self.put(&texts.len().to_string());
        texts.for_each(|text| self.put(text));
    }
}

impl EngineBuilder {
    /// The name of what the build of a job comes to; `None` outside of a build of many packages, where nobody asks.
    pub(super) async fn result_of(
        &self,
        input: &BuildInput,
        plan: &Plan,
        resolution: &Resolution,
    ) -> Result<Option<ResultDigest>> {
        let Some(build) = &input.repositories else { return Ok(None) };
        let mut texts = Texts(Sha256::new());
        texts.put(FORMAT);
        texts.all([&input.config_yaml, &input.config_name].into_iter().map(String::as_str));
        // Which pipelines are there decides nothing, only which are used.
        let used = input.pipelines.iter().filter(|(path, _)| {
            path.strip_suffix(".yaml").is_some_and(|name| plan.inline_pipelines.contains(name))
        });
        let used: Vec<&str> = used.flat_map(|(path, text)| [path.as_str(), text.as_str()]).collect();
        texts.all(used.into_iter());
        texts.put(&format!("{:?}", input.options));
        texts.put(input.source_digest.as_deref().unwrap_or_default());
        texts.put(&rootfs::cache_key(resolution, &plan.environment, plan.arch));
        // Packages carry the lock in their definitions.
        texts.all(resolution.lock.iter().map(String::as_str));
        let options = &self.options;
        let key = options.signing_key.as_ref();
        texts.put(&key.map(|key| key.public_name()).unwrap_or_default());
        texts.put(&key.and_then(|key| key.public_pem().ok()).unwrap_or_default());
        texts.put(&options.epoch_seconds.to_string());
        // Not the origin of this one definition: what an earlier commit made of the same definition is what it made, and
        // says so.
        let told = [&options.namespace, &options.config_license, &options.config_repository, &options.commit];
        texts.all(told.into_iter().map(String::as_str));
        // What nothing stood against may be refused by another set.
        texts.all(options.linters.required.iter().map(|linter| linter.name()));
        texts.put(&input.origin.license);
        let is_tested = input.with_test && !plan.tests.is_empty();
        texts.put(if is_tested { "tested" } else { "made" });
        if is_tested {
            texts.all(input.test_packages.iter().map(String::as_str));
            // What tests install depends on what is made; all that they could install has a part then.
            for package in &build.made().packages {
                let sum = package.control_sha1.map(hex::encode).unwrap_or_default();
                texts.all([&package.name, &package.version, &sum].into_iter().map(String::as_str));
            }
            for test in &plan.tests {
                texts.put(&test.subject);
                for line in &test.environment.repositories {
                    let sha256 = build.index(line).await?.map(|(_, sha256)| sha256).unwrap_or_default();
                    texts.all([line, &sha256].into_iter().map(String::as_str));
                }
            }
        }
        Ok(Some(ResultDigest::from_bytes(texts.0.finalize().into())))
    }

    /// The job that has made this, when somebody is to be asked and knows one.
    pub(super) async fn known(&self, input: &BuildInput, result: Option<&ResultDigest>) -> Option<JobId> {
        let (known, result) = input.known.as_ref().zip(result)?;
        match known.find(result).await {
            Ok(found) => found,
            Err(error) => {
                let attempt = &input.attempt;
                tracing::warn!(attempt, error = %error.chain(), "whether it was made already cannot be told; it is built");
                None
            }
        }
    }
}
