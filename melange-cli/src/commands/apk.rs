//! `melange apk …`: packages and repositories, looked at by our own reader and solver.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use melange_remote_sdk::analysis::scan;
use melange_remote_sdk::apk::reader::ApkFile;
use melange_remote_sdk::apk::signature::Keyring;
use melange_remote_sdk::apk::version::Version;
use melange_remote_sdk::error::{Error, Result};
use melange_remote_sdk::melange::plan::PlanEnvironment;
use melange_remote_sdk::rootfs::Assembler;
use melange_remote_sdk::solver::Policy;

use super::local;
use crate::args::{ApkCommand, Output, ResolveArgs};
use crate::exit::{self, Exit};
use crate::{input, note, out, shown};

pub(super) async fn run(command: ApkCommand, output: Output) -> Result<Exit> {
    match command {
        ApkCommand::Resolve(args) => resolve(&args, output).await,
        ApkCommand::Version { a, b, .. } => version(&a, &b, output),
        ApkCommand::Info { file, .. } => info(&file, output),
        ApkCommand::Scan { file, beside, diff, .. } => scan(&file, &beside, diff, output),
        ApkCommand::Verify { files, keyring, allow_untrusted, .. } => {
            verify(&files, &keyring, allow_untrusted, output)
        }
        ApkCommand::Install { root, resolve } => install(&root, &resolve, output).await,
    }
}

fn assembler(args: &ResolveArgs) -> Result<Assembler> {
    local::assembler(args.repositories.allow_untrusted)
}

fn environment(args: &ResolveArgs) -> Result<PlanEnvironment> {
    let environment = local::environment(&args.repositories.repositories, &args.repositories.keyring)?;
    Ok(PlanEnvironment { packages: args.packages.clone(), ..environment })
}

async fn resolve(args: &ResolveArgs, output: Output) -> Result<Exit> {
    let policy = if args.pick { Policy::Apko } else { Policy::Apk };
    let resolution = assembler(args)?.resolve_with(&environment(args)?, args.arch, policy).await?;
    let mut names: Vec<String> = resolution
        .choices
        .iter()
        .map(|choice| {
            let repository = &resolution.repositories[choice.repository];
            let package = &repository.index.packages[choice.package];
            let tag = if repository.tag.is_empty() { String::new() } else { format!("@{}", repository.tag) };
            format!("{}{tag}-{}", package.name, package.version)
        })
        .collect();
    names.sort();
    match output {
        Output::Text => out::text(&names.iter().map(|name| format!("{name}\n")).collect::<String>())?,
        Output::Json => out::json(&names)?,
    }
    Ok(Exit::Ok)
}

fn version(a: &str, b: &str, output: Output) -> Result<Exit> {
    let parse = |text: &str| {
        Version::parse(text).ok_or_else(|| {
            Error::invalid(format!("{text:?} is not an apk version"))
                .hint("a version looks like `1.2.3-r0`, `1.2a`, `1.2_rc1` or `1.2_p20240101`")
        })
    };
    let order = match parse(a)?.cmp(&parse(b)?) {
        std::cmp::Ordering::Less => "<",
        std::cmp::Ordering::Equal => "=",
        std::cmp::Ordering::Greater => ">",
    };
    match output {
        Output::Text => out::line(order)?,
        Output::Json => out::json_line(&serde_json::json!({ "a": a, "b": b, "order": order }))?,
    }
    Ok(Exit::Ok)
}

fn info(path: &Path, output: Output) -> Result<Exit> {
    input::open(path)?;
    let apk = ApkFile::open_control(path)?;
    let entries = apk.entries()?;
    if output == Output::Json {
        let scripts: Vec<&String> = apk.scripts.keys().collect();
        let value = serde_json::json!({
            "file": path.display().to_string(),
            "size_bytes": apk.size_bytes,
            "signed": apk.signature.is_some(),
            "checksum": melange_remote_sdk::apk::checksum::q1(&apk.control_sha1),
            "pkginfo": apk.info,
            "control": scripts,
            "files": entries,
        });
        out::json(&value)?;
        return Ok(Exit::Ok);
    }
    let mut text = format!("{}\n", apk.info.to_text().trim_end());
    for entry in entries {
        // A line is a file whatever its name holds.
        let name = shown::word(&entry.path);
        let link =
            if entry.link.is_empty() { String::new() } else { format!(" -> {}", shown::word(&entry.link)) };
        text.push_str(&format!(
            "{} {}:{} {:>10} {}{link}\n",
            entry.mode, entry.uid, entry.gid, entry.size, name
        ));
    }
    out::text(&text)?;
    Ok(Exit::Ok)
}

fn scan(path: &Path, beside: &[PathBuf], diff: bool, output: Output) -> Result<Exit> {
    let open = |path: &Path| input::open(path).and_then(|_| ApkFile::open_control(path));
    let apk = open(path)?;
    let others: Vec<ApkFile> = beside.iter().map(|path| open(path)).collect::<Result<_>>()?;
    let found = scan::of_packages(&apk, &others)?;
    let lists = [
        ("depend", &apk.info.depend, &found.runtime),
        ("provides", &apk.info.provides, &found.provides),
        ("# vendored", &apk.info.vendored, &found.vendored),
    ];
    if !diff {
        match output {
            Output::Text => {
                let lines = lists.iter().flat_map(|(key, _, found)| {
                    found.iter().map(move |item| format!("{key} = {}\n", shown::word(item)))
                });
                out::text(&lines.collect::<String>())?;
            }
            Output::Json => out::json(&serde_json::json!({
                "package": apk.info.pkgname,
                "version": apk.info.pkgver,
                "depend": found.runtime,
                "provides": found.provides,
                "vendored": found.vendored,
            }))?,
        }
        return Ok(Exit::Ok);
    }
    let (mut lines, mut differences) = (String::new(), serde_json::Map::new());
    // What packages have as comments is no part of what they say.
    for (key, recorded, found) in &lists[..2] {
        let only = |one: &[String], other: &[String]| -> Vec<String> {
            let one: BTreeSet<&String> = one.iter().collect();
            one.into_iter().filter(|item| !other.contains(item)).cloned().collect()
        };
        let (recorded, found) = (only(recorded, found), only(found, recorded));
        for (sign, items) in [("-", &recorded), ("+", &found)] {
            lines.extend(items.iter().map(|item| format!("{sign}{key} = {}\n", shown::word(item))));
        }
        differences.insert((*key).to_owned(), serde_json::json!({ "recorded": recorded, "found": found }));
    }
    let differs = !lines.is_empty();
    match output {
        Output::Text => out::text(&lines)?,
        Output::Json => out::json(&serde_json::json!({
            "package": apk.info.pkgname,
            "version": apk.info.pkgver,
            "differs": differs,
            "only": differences,
        }))?,
    }
    Ok(if differs { Exit::Failed } else { Exit::Ok })
}

fn verify(files: &[PathBuf], keys: &[PathBuf], allow_untrusted: bool, output: Output) -> Result<Exit> {
    let mut keyring = Keyring::default();
    for path in keys {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        keyring.add(name, &input::read(path, input::KEY_BYTES_MAX)?)?;
    }
    let mut exit = Exit::Ok;
    for path in files {
        let checked = input::open(path).and_then(|_| ApkFile::open_control(path)).and_then(|apk| {
            let mut files = 0usize;
            apk.for_each_entry(|_| files += 1)?;
            let by = if allow_untrusted { "not checked".to_owned() } else { apk.verify_signature(&keyring)? };
            Ok((files, by))
        });
        let name = path.display().to_string();
        match (checked, output) {
            (Ok((files, by)), Output::Text) => {
                out::line(&format!("{name}: ok, {files} files, signature: {by}"))?;
            }
            (Ok((files, by)), Output::Json) => {
                out::json_line(&serde_json::json!({ "file": name, "files": files, "signature": by }))?;
            }
            (Err(error), _) => {
                exit = exit.and(exit::code_of(&error));
                note::error(&error.with("file", name), output);
            }
        }
    }
    Ok(exit)
}

async fn install(root: &Path, args: &ResolveArgs, output: Output) -> Result<Exit> {
    if root.exists() && std::fs::read_dir(root).map_err(|e| Error::io("list", root, e))?.next().is_some() {
        return Err(Error::invalid(format!("{} is not empty", root.display())).hint("name a new folder"));
    }
    std::fs::create_dir_all(root).map_err(|e| Error::io("create", root, e))?;
    let (assembler, environment) = (assembler(args)?, environment(args)?);
    let resolution = assembler.resolve(&environment, args.arch).await?;
    let rootfs = assembler.assemble(&resolution, &environment, args.arch).await?;
    let status = std::process::Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&rootfs.blob.path)
        .arg("-C")
        .arg(root)
        .status()
        .map_err(|e| Error::unexpected("cannot run tar").source(e))?;
    if !status.success() {
        return Err(Error::unexpected(format!("cannot unpack into {}", root.display())));
    }
    let (packages, root) = (resolution.choices.len(), root.display().to_string());
    match output {
        Output::Text => out::line(&format!("installed {packages} packages into {root}"))?,
        Output::Json => out::json(&serde_json::json!({ "root": root, "packages": packages }))?,
    }
    Ok(Exit::Ok)
}
