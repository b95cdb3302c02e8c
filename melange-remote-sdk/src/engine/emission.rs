//! Station 11: packages and their index from what the steps left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{EngineOptions, licenses};
use crate::analysis::lint::{self, Finding, LintInput, PackageLint, TestSteps};
use crate::analysis::sbom::{self, SbomInput};
use crate::analysis::scan::{self, ScanInput};
use crate::apk::checksum;
use crate::apk::index::{Index, IndexPackage};
use crate::apk::pkginfo::PkgInfo;
use crate::apk::reader::ApkFile;
use crate::apk::tree::{Content, EntryKind, Tree};
use crate::apk::writer::{self, EmitOptions, Written};
use crate::builder::{BuildEvent, BuildSink, BuiltFile, LogStream};
use crate::error::{Error, Result};
use crate::limits;
use crate::melange::emit;
use crate::melange::plan::{Plan, PlanPackage};
use crate::rootfs::{Resolution, Rootfs};

/// Everything that packaging reads; owned, so that it can run beside the async world.
pub(super) struct Emission {
    pub(super) options: EngineOptions,
    pub(super) config_name: String,
    pub(super) plan: Arc<Plan>,
    pub(super) resolution: Resolution,
    pub(super) rootfs: Rootfs,
    pub(super) output: PathBuf,
    pub(super) folder: PathBuf,
}

/// What packaging came to.
pub(super) struct Emitted {
    /// Packages and their index; none when they are refused.
    pub(super) files: Vec<BuiltFile>,
    /// What the linters found in each package in which they found something.
    pub(super) lint: Vec<PackageLint>,
    /// Why they are not made, when a finding stands against one.
    pub(super) refusal: Option<String>,
}

impl Emission {
    /// Lints and packs everything; tells `sink` what was found and what was packed.
    pub(super) fn emit(&self, sink: &dyn BuildSink) -> Result<Emitted> {
        let output = Tree::read_tar(&self.output)?;
        let license_texts = licenses::texts(&self.plan.package, &output)?;
        let mut trees = Vec::new();
        for package in self.plan.packages() {
            let mut tree = output.subtree(&package.name);
            apply_setcap(&mut tree, package)?;
            trees.push(tree);
        }
        let lint = self.lint(&trees, sink)?;
        if let Some(refusal) = lint::refusal(&lint) {
            say(sink, format!("error: {refusal}"));
            say(sink, "hint: mend the package, or name the linter under its `checks.disabled`".to_owned());
            return Ok(Emitted { files: Vec::new(), lint, refusal: Some(refusal) });
        }
        Ok(Emitted { files: self.pack(trees, &license_texts, sink)?, lint, refusal: None })
    }

    /// Lints every package, also behind one that is refused: whoever mends one sees them all.
    fn lint(&self, trees: &[Tree], sink: &dyn BuildSink) -> Result<Vec<PackageLint>> {
        let mut reports = Vec::new();
        let mut bytes = 0usize;
        for (package, tree) in self.plan.packages().zip(trees) {
            let tests = TestSteps::of(&self.plan.document, &package.name);
            let sets = self.options.linters.for_package(&package.checks_disabled)?;
            let version = package.full_version();
            let (package, tests, sets) = (package.name.as_str(), &tests, &sets);
            let report = lint::lint(&LintInput { package, version: &version, tree, tests, sets })?;
            if report.findings.is_empty() {
                continue;
            }
            report.findings.iter().flat_map(Finding::log_lines).for_each(|line| say(sink, line));
            bytes = bytes.saturating_add(report.size_bytes());
            let report = if bytes > limits::LINT_BUILD_BYTES_MAX {
                report.shortened(limits::LINT_DETAILS_TOLD, limits::LINT_DETAILS_TOLD_BYTES)
            } else {
                report
            };
            sink.emit(BuildEvent::Linted { report: report.clone() });
            reports.push(report);
        }
        Ok(reports)
    }

    fn add_sbom(
        &self,
        package: &PlanPackage,
        tree: &mut Tree,
        license_texts: &BTreeMap<String, String>,
    ) -> Result<()> {
        let sbom = sbom::document(&SbomInput {
            namespace: &self.options.namespace,
            arch: self.plan.arch.apk_name(),
            main: &self.plan.package,
            package,
            license_texts,
            config_name: &self.config_name,
            config_license: &self.options.config_license,
            repository: &self.options.config_repository,
            commit: &self.options.commit,
            epoch_seconds: self.options.epoch_seconds,
        });
        tree.add_file(&sbom::path(package), 0o644, &sbom)
    }

    fn pack(
        &self,
        mut trees: Vec<Tree>,
        license_texts: &BTreeMap<String, String>,
        sink: &dyn BuildSink,
    ) -> Result<Vec<BuiltFile>> {
        let definition = emit::locked_definition(&self.plan, &self.resolution.lock)?;
        let folder = self.folder.join(self.plan.arch.apk_name());
        std::fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
        let mut index = Index::default();
        let mut files = Vec::new();
        for (number, package) in self.plan.packages().enumerate() {
            let Some(tree) = trees.get_mut(number) else { break };
            self.add_sbom(package, tree, license_texts)?;
            let count = tree.len();
            let (path, written) = self.emit_package(package, number, &trees, &definition, &folder)?;
            // It is large when licences are, and nobody looks at it any more.
            let sbom = trees.get_mut(number).and_then(|tree| tree.get_mut(&sbom::path(package)));
            if let Some(entry) = sbom {
                entry.kind = EntryKind::File(Content::Made(Arc::from(&[][..])));
            }
            let (name, bytes) = (file_name(&path), written.size_bytes);
            say(sink, format!("packed {name} ({bytes} bytes, {count} files)"));
            index.put(IndexPackage::from_apk(&ApkFile::open_control(&path)?));
            files.push(self.built(path, written.size_bytes, written.sha256));
        }
        let path = folder.join("APKINDEX.tar.gz");
        let bytes = index.write(self.options.signing_key.as_deref())?;
        std::fs::write(&path, &bytes).map_err(|e| Error::io("write", &path, e))?;
        files.push(self.built(path, bytes.len() as u64, checksum::sha256_hex(&bytes)));
        Ok(files)
    }

    fn emit_package(
        &self,
        package: &PlanPackage,
        number: usize,
        siblings: &[Tree],
        definition: &str,
        folder: &Path,
    ) -> Result<(PathBuf, Written)> {
        let tree = siblings.get(number).ok_or_else(|| Error::unexpected("a package has no files"))?;
        let found = scan::dependencies(&ScanInput { package, tree, siblings });
        let mut info = PkgInfo {
            pkgname: package.name.clone(),
            pkgver: package.full_version(),
            arch: self.plan.arch.apk_name().to_owned(),
            size: writer::installed_size(tree),
            origin: match self.options.strip_origin {
                true => package.name.clone(),
                false => self.plan.package.name.clone(),
            },
            pkgdesc: package.description.clone(),
            url: package.url.clone(),
            commit: package.commit.clone(),
            maintainer: self.options.namespace.clone(),
            builddate: self.options.epoch_seconds,
            license: self.plan.package.copyright.iter().map(|entry| entry.license.clone()).collect(),
            depend: found.runtime,
            provides: found.provides,
            replaces: package.replaces.clone(),
            vendored: found.vendored,
            provider_priority: package.provider_priority.clone(),
            replaces_priority: package.replaces_priority.clone(),
            triggers: package.trigger_paths.clone(),
            ..PkgInfo::default()
        };
        let mut control: BTreeMap<String, Vec<u8>> = package
            .scriptlets
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes()))
            .collect();
        control.insert(".melange.yaml".to_owned(), definition.as_bytes().to_vec());
        let build_account = self
            .plan
            .environment
            .users
            .iter()
            .find(|user| user.name == "build")
            .map_or(1000, |user| user.uid);
        let options = EmitOptions {
            epoch_seconds: u64::try_from(self.options.epoch_seconds).unwrap_or_default(),
            build_account,
            names: &self.rootfs.names,
            key: self.options.signing_key.as_deref(),
        };
        let path = folder.join(format!("{}-{}.apk", package.name, package.full_version()));
        let written = writer::write_package(&path, tree, &mut info, &control, &options)?;
        Ok((path, written))
    }

    fn built(&self, path: PathBuf, size_bytes: u64, sha256: String) -> BuiltFile {
        let name = format!("{}/{}", self.plan.arch, file_name(&path));
        BuiltFile::new(name, path, size_bytes, sha256)
    }
}

fn say(sink: &dyn BuildSink, line: String) {
    sink.emit(BuildEvent::Log { stream: LogStream::Engine, step: None, line });
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn apply_setcap(tree: &mut Tree, package: &PlanPackage) -> Result<()> {
    for setcap in &package.setcap {
        let value = writer::capability_xattr(&setcap.add);
        match tree.get_mut(&setcap.path).filter(|entry| matches!(entry.kind, EntryKind::File(_))) {
            Some(entry) => {
                entry.xattrs.insert("security.capability".to_owned(), value);
            }
            None => {
                let message = format!("`setcap` names {}, which {} does not hold", setcap.path, package.name);
                return Err(Error::invalid(message).hint("give the path relative to the package's root"));
            }
        }
    }
    Ok(())
}
