//! What sub-packages take out of a package.

use std::fmt::Write;

use super::{Contents, build, failure, try_build};
use crate::support::farm::on_farm;

const SPLITS: &str = include_str!("../definitions/pipelines/splits.yaml");

#[test]
fn every_kind_of_subpackage_takes_its_files() {
    on_farm(async |farm| {
        let Some(built) = build(farm, "tree", SPLITS).await else { return };
        let mut shown = String::new();
        let names: Vec<String> = built
            .bytes()
            .keys()
            .filter_map(|name| Some(name.strip_prefix("x86_64/")?.strip_suffix(".apk")?.to_owned()))
            .collect();
        assert_eq!(names.len(), 13);
        for name in names {
            let contents = Contents::of(&built, &name);
            writeln!(shown, "==> {name}").unwrap();
            for path in contents.files() {
                let entry = contents.entry(path);
                let link = if entry.flag() == '2' { format!(" -> {}", entry.link()) } else { String::new() };
                writeln!(shown, "{:04o} {path}{link}", entry.mode()).unwrap();
            }
        }
        insta::assert_snapshot!("splits", shown);
        assert_eq!(built.events.lines_of("tree-strip: look"), ["0", "0", "libanswer.so.1.0.debug", "1"]);
    });
}

#[test]
fn a_package_cannot_be_split_from_itself_nor_from_none() {
    on_farm(async |farm| {
        for kind in ["alldocs", "bin", "debug", "dev", "infodir", "lib", "locales", "manpages", "static"] {
            let uses = format!("uses: split/{kind}\n        with:\n          package: ");
            let old = "uses: split/static\n";
            let yaml = SPLITS.replacen(old, &format!("{uses}tree-static\n"), 1);
            assert_ne!(yaml, SPLITS);
            let Some(built) = try_build(farm, "tree", &yaml).await else { return };
            let (step, tail) = failure(&built);
            assert_eq!(step, format!("tree-static: split/{kind}"));
            assert!(tail.contains("Package can not split files from itself!"), "{kind}: {tail}");
        }
        let missing = "uses: split/static\n        with:\n          package: no-such\n";
        let yaml = SPLITS.replacen("uses: split/static\n", missing, 1);
        let (_, tail) = failure(&try_build(farm, "tree", &yaml).await.unwrap());
        assert!(tail.contains("no-such does not exist"), "{tail}");
    });
}
