//! `melange plan`: what a build of many packages would do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use melange_remote_sdk::api::v2::PlanView;
use melange_remote_sdk::arch::Arch;
use melange_remote_sdk::error::{Error, ErrorKind, Result};
use melange_remote_sdk::limits;
use melange_remote_sdk::melange::pipelines::PipelineSet;
use melange_remote_sdk::melange::plan::PlanEnvironment;
use melange_remote_sdk::melange::{self, CompileOptions, Compiled};
use melange_remote_sdk::planner::{
    ArchPlan, Definition, Durations, PlanInput, PlanRequest, Selection, Skip, plan,
};
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::rootfs::repository::LoadedRepository;
use melange_remote_sdk::solver::RepositoryPackages;
use melange_remote_sdk::text::diagnostics::Diagnostics;

use super::{definition, local};
use crate::args::{Output, PlanArgs, PlanCommand, PlanFormat, PlanOptions};
use crate::exit::{self, Exit};
use crate::render::plan as render;
use crate::{input, note, out};

/// Folders below the given ones that are looked into for patterns.
const FOLDER_DEPTH_MAX: usize = 16;

pub(super) async fn run(args: PlanArgs, output: Output) -> Result<Exit> {
    match &args.command {
        Some(PlanCommand::Why { from, to, paths, options, .. }) => {
            let (plans, exit) = plans(paths, options, output).await?;
            let chains = of_any(plans.iter().map(|plan| chain(plan, from, to)))?;
            let chains: Vec<_> = chains.into_iter().flatten().collect();
            match output {
                Output::Json => out::json(&render::chains_json(&chains))?,
                Output::Text if chains.is_empty() => out::line(&format!("{from} does not need {to}"))?,
                Output::Text => out::text(&render::chains(&chains))?,
            }
            Ok(exit)
        }
        Some(PlanCommand::Cycles { paths, options, .. }) => {
            let (plans, exit) = plans(paths, options, output).await?;
            match output {
                Output::Json => out::json(&render::cycles_json(&plans))?,
                Output::Text => out::text(&render::cycles(&plans))?,
            }
            Ok(exit)
        }
        None => {
            let (plans, exit) = plans(&args.paths, &args.options, output).await?;
            let view = PlanView::new(&plans);
            match args.output {
                PlanFormat::Json => out::json(&view)?,
                PlanFormat::Text => out::text(&render::text(&view, &args.show))?,
                PlanFormat::Dot => out::text(&render::dot(&view))?,
            }
            Ok(exit)
        }
    }
}

/// The chain between two packages, when the plan of an architecture has both.
fn chain<'p>(plan: &'p ArchPlan, from: &str, to: &str) -> Result<Option<(&'p ArchPlan, Vec<render::Need>)>> {
    let job = |name: &str| {
        let skipped = plan.skipped.iter().find(|skip| skip.name == name);
        plan.job_of(name).ok_or_else(|| match skipped {
            Some(skip) => Error::new(ErrorKind::NotFound, format!("{name} is not planned: {}", skip.reason))
                .hint("what is published is planned with `--rebuild all`"),
            None => Error::new(ErrorKind::NotFound, format!("no job of the plan makes {name:?}"))
                .hint("name packages or subpackages of the definitions"),
        })
    };
    Ok(plan.chain(job(from)?, job(to)?).map(|chain| (plan, render::needs(plan, &chain))))
}

/// What was found for some of the architectures: one may lack what another one has.
fn of_any<T>(found: impl Iterator<Item = Result<T>>) -> Result<Vec<T>> {
    let (mut all, mut missing) = (Vec::new(), None);
    for found in found {
        match found {
            Ok(found) => all.push(found),
            Err(error) if error.kind() == ErrorKind::NotFound => missing = missing.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if all.is_empty() => Err(error),
        _ => Ok(all),
    }
}

/// The plans of all architectures, and how the command ends.
async fn plans(paths: &[PathBuf], options: &PlanOptions, output: Output) -> Result<(Vec<ArchPlan>, Exit)> {
    let mut args = options.definition.clone();
    // A distribution brings its own pipelines along.
    args.pipeline_dirs.extend(paths.iter().filter(|path| path.is_dir()).map(|path| path.join("pipelines")));
    let (pipelines, compile_options) = definition::compiler(&args)?;
    let selection = Selection { packages: options.packages.clone(), globs: options.globs.clone() };
    let files = files(paths, &selection)?;
    let mut request = PlanRequest::default();
    request.selection = selection;
    request.with_dependencies = options.with_dependencies.into();
    request.rebuild = options.rebuild.into();
    request.cut = options.cut.into();
    let published = Published::of(options)?;
    let (mut found, mut exit) = (Vec::new(), Exit::Ok);
    for arch in &options.arch {
        let (definitions, skipped, ended) = compiled(&files, *arch, &pipelines, &compile_options, output)?;
        let indexes = match &published {
            Some(published) => published.indexes(*arch).await?,
            None => Vec::new(),
        };
        let published: Vec<RepositoryPackages<'_>> = indexes.iter().map(|loaded| loaded.packages()).collect();
        let durations = Durations::default();
        let input = PlanInput { arch: *arch, definitions, skipped, published: &published, durations };
        let planned = plan(&input, &request);
        let is_refused = planned.as_ref().is_ok_and(|plan| !plan.refused.is_empty());
        exit = exit.and(ended).and(if is_refused { Exit::Failed } else { Exit::Ok });
        found.push(planned);
    }
    let plans = of_any(found.into_iter())?;
    plans.iter().for_each(|plan| note::text(&render::refusals(plan)));
    Ok((plans, exit))
}

/// A definition, and its name within the folder that was given.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) name: String,
}

/// The definitions right in the folders, and those in all folders below that a pattern fits.
pub(super) fn files(paths: &[PathBuf], selection: &Selection) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let is_deep = selection.globs.iter().any(|glob| glob.contains('/'));
            let mut found = Vec::new();
            collect(path, Path::new(""), if is_deep { FOLDER_DEPTH_MAX } else { 0 }, &mut found)?;
            let fitting = selection.fitting(found.iter().map(|file| file.name.as_str()))?;
            let wanted = found.into_iter().zip(fitting);
            files.extend(
                wanted.filter(|(file, fits)| *fits || !file.name.contains('/')).map(|(file, _)| file),
            );
        } else {
            files.push(File { path: path.clone(), name: input::name(path) });
        }
    }
    if files.is_empty() {
        let named = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(format!("{named} holds no .yaml file")));
    }
    Ok(files)
}

fn collect(folder: &Path, below: &Path, depth: usize, files: &mut Vec<File>) -> Result<()> {
    let here = folder.join(below);
    let failed = |error| input::failed("list", &here, error);
    let mut entries =
        std::fs::read_dir(&here).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let inside = below.join(&name);
        // Links to folders are not followed: they may lead in circles.
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            if depth > 0 && !(below == Path::new("") && name == "pipelines") {
                collect(folder, &inside, depth - 1, files)?;
            }
        } else if inside.extension().is_some_and(|extension| extension == "yaml") && entry.path().is_file() {
            if files.len() >= limits::PLAN_DEFINITIONS_MAX {
                let message = format!("there are more than {} definitions", limits::PLAN_DEFINITIONS_MAX);
                return Err(Error::new(ErrorKind::LimitExceeded, message));
            }
            files.push(File { path: entry.path(), name: inside.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

/// What one definition comes to.
enum Outcome {
    Definition(Box<Definition>),
    Skipped(Skip),
}

/// The definitions for an architecture, those of which there is nothing to build, and how it ended.
fn compiled(
    files: &[File],
    arch: Arch,
    pipelines: &PipelineSet,
    options: &CompileOptions,
    output: Output,
) -> Result<(Vec<Definition>, Vec<Skip>, Exit)> {
    let paths: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    let work = |path: &Path| -> Result<Outcome> {
        let source = definition::source(path)?;
        let compiled =
            melange::compile(&source, arch, pipelines, options).map_err(Diagnostics::into_error)?;
        Ok(match compiled {
            Compiled::Plan(plan) => Outcome::Definition(Box::new(Definition::new("", &plan))),
            Compiled::Skipped { package, reason } => {
                Outcome::Skipped(Skip { name: package, file: String::new(), reason })
            }
        })
    };
    let (mut definitions, mut skipped, mut exit) = (Vec::new(), Vec::new(), Exit::Ok);
    let mut names = files.iter().map(|file| &file.name);
    definition::for_each(&paths, work, |path, outcome| {
        let file = names.next().cloned().unwrap_or_default();
        match outcome {
            Ok(Outcome::Definition(mut definition)) => {
                definition.file = file;
                definitions.push(*definition);
            }
            Ok(Outcome::Skipped(skip)) => skipped.push(Skip { file, ..skip }),
            Err(error) => {
                note::error(&error, output);
                exit = exit.and(exit::code_of(&error));
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                skipped.push(Skip { name, file, reason: "the definition has mistakes".to_owned() });
            }
        }
        Ok(())
    })?;
    Ok((definitions, skipped, exit))
}

/// What is published, as the options name it.
struct Published {
    assembler: Assembler,
    environment: PlanEnvironment,
}

impl Published {
    /// `None` when no repository is named.
    fn of(options: &PlanOptions) -> Result<Option<Self>> {
        if options.repositories.is_empty() {
            return Ok(None);
        }
        // Nothing is installed: what an index says wrongly makes a wrong plan, and no more.
        let assembler = local::assembler(options.keyring.is_empty())?;
        let environment = local::environment(&options.repositories, &options.keyring)?;
        Ok(Some(Self { assembler, environment }))
    }

    async fn indexes(&self, arch: Arch) -> Result<Vec<Arc<LoadedRepository>>> {
        self.assembler.indexes(&self.environment, arch).await
    }
}
