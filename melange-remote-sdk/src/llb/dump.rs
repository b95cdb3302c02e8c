//! A text form of a graph for people and for goldens: one line per fact, ops by number, in marshalled order.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bollard_buildkit_proto::pb::{self, file_action::Action, op::Op};
use prost::Message;

use super::graph::{Definition, sha256};

/// Tells `definition` as text; the same graph gives the same text.
pub fn dump(definition: &Definition) -> String {
    let mut text = String::new();
    let mut numbers = BTreeMap::new();
    for (number, bytes) in definition.ops().iter().enumerate() {
        let digest = sha256(bytes);
        let Ok(op) = pb::Op::decode(bytes.as_slice()) else {
            line(&mut text, 0, format_args!("op {number}: unreadable"));
            continue;
        };
        let metadata = definition.metadata(&digest).cloned().unwrap_or_default();
        numbers.insert(digest, number);
        let name = metadata.description.get("llb.customname").map_or("result", String::as_str);
        line(&mut text, 0, format_args!("op {number}: {name}"));
        for input in &op.inputs {
            match numbers.get(&input.digest) {
                Some(number) => {
                    line(&mut text, 1, format_args!("input: op {number}, output {}", input.index))
                }
                None => line(&mut text, 1, format_args!("input: unknown {}", input.digest)),
            }
        }
        if let Some(platform) = &op.platform {
            let parts = [platform.os.as_str(), platform.architecture.as_str(), platform.variant.as_str()];
            line(&mut text, 1, format_args!("platform: {}", parts.join("/").trim_end_matches('/')));
        }
        match &op.op {
            Some(Op::Source(source)) => dump_source(&mut text, source),
            Some(Op::File(file)) => file.actions.iter().for_each(|action| dump_action(&mut text, action)),
            Some(Op::Exec(exec)) => dump_exec(&mut text, exec),
            Some(_) => line(&mut text, 1, format_args!("another kind of op")),
            None => {}
        }
        let caps: Vec<&str> = metadata.caps.keys().map(String::as_str).collect();
        line(&mut text, 1, format_args!("needs: {}", caps.join(" ")));
    }
    text
}

fn line(text: &mut String, depth: usize, content: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:indent$}{content}", "", indent = depth * 2);
}

fn dump_source(text: &mut String, source: &pb::SourceOp) {
    line(text, 1, format_args!("source: {}", source.identifier));
    for (key, value) in &source.attrs {
        line(text, 2, format_args!("{key}: {value}"));
    }
}

fn dump_action(text: &mut String, action: &pb::FileAction) {
    let from = format!("({} {} -> {})", action.input, action.secondary_input, action.output);
    match &action.action {
        Some(Action::Copy(copy)) => {
            let verb = if copy.attempt_unpack_docker_compatibility { "unpack" } else { "copy" };
            line(text, 1, format_args!("{verb} {from}: {} to {}", copy.src, copy.dest));
        }
        Some(Action::Mkfile(file)) => {
            let size = file.data.len();
            line(text, 1, format_args!("file {from}: {} mode {:o}, {size} bytes", file.path, file.mode));
            for content in String::from_utf8_lossy(&file.data).lines() {
                line(text, 2, format_args!("| {content}"));
            }
        }
        Some(Action::Mkdir(folder)) => {
            let owner = owner(folder.owner.as_ref());
            line(text, 1, format_args!("folder {from}: {} mode {:o}{owner}", folder.path, folder.mode));
        }
        Some(Action::Rm(remove)) => line(text, 1, format_args!("remove {from}: {}", remove.path)),
        Some(Action::Symlink(link)) => {
            line(text, 1, format_args!("symlink {from}: {} to {}", link.newpath, link.oldpath));
        }
        None => line(text, 1, format_args!("nothing {from}")),
    }
}

fn owner(owner: Option<&pb::ChownOpt>) -> String {
    let id = |user: Option<&pb::UserOpt>| match user.and_then(|user| user.user.as_ref()) {
        Some(pb::user_opt::User::ById(id)) => id.to_string(),
        Some(pb::user_opt::User::ByName(name)) => name.name.clone(),
        None => "-".to_owned(),
    };
    owner.map(|o| format!(" owner {}:{}", id(o.user.as_ref()), id(o.group.as_ref()))).unwrap_or_default()
}

fn dump_exec(text: &mut String, exec: &pb::ExecOp) {
    if let Some(meta) = &exec.meta {
        line(text, 1, format_args!("run: {}", meta.args.join(" ")));
        line(text, 2, format_args!("in {} as {}", meta.cwd, meta.user));
        for variable in &meta.env {
            line(text, 2, format_args!("env {variable}"));
        }
    }
    let network = pb::NetMode::try_from(exec.network).map_or("unknown", |mode| mode.as_str_name());
    line(text, 2, format_args!("network {}", network.to_lowercase()));
    for mount in &exec.mounts {
        let kind = pb::MountType::try_from(mount.mount_type).map_or("unknown", |kind| kind.as_str_name());
        let access = if mount.readonly { "ro" } else { "rw" };
        let cache = mount.cache_opt.as_ref().map(|cache| format!(" id {}", cache.id)).unwrap_or_default();
        let (kind, input, output) = (kind.to_lowercase(), mount.input, mount.output);
        let selector = if mount.selector.is_empty() { "/" } else { &mount.selector };
        line(
            text,
            2,
            format_args!("mount {kind} {access} {} from {input}:{selector} -> {output}{cache}", mount.dest),
        );
    }
}
