//! Go, Rust, Python, Perl, Ruby and PHP.

use super::{Contents, build, failure, try_build};
use crate::support::farm::on_toolchains;

const GO: &str = include_str!("../definitions/pipelines/go.yaml");
const RUST: &str = include_str!("../definitions/pipelines/rust.yaml");
const PYTHON: &str = include_str!("../definitions/pipelines/python.yaml");
const EXTENSIONS: &str = include_str!("../definitions/pipelines/extensions.yaml");

#[test]
fn go_programs_are_built_installed_and_measured() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "go-programs", GO).await else { return };
        println!("{}", built.events.text());
        let _ = (Contents::of(&built, "go-programs-1.2.3-r0"), failure, try_build);
    });
}

#[test]
fn a_crate_is_built_and_measured() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "rust-program", RUST).await else { return };
        println!("{}", built.events.text());
    });
}

#[test]
fn python_packages_are_built_and_imported() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "python-module", PYTHON).await else { return };
        println!("{}", built.events.text());
    });
}

#[test]
fn modules_in_c_are_built_for_perl_ruby_and_php() {
    on_toolchains(async |farm| {
        let Some(built) = build(farm, "extensions", EXTENSIONS).await else { return };
        println!("{}", built.events.text());
    });
}
