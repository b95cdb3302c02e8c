//! Programs that no Debian package holds. The definitions get stand-ins that tell the arguments they were given;
//! all that these pipelines do beside is done for real.
//!
//! gobump and pombump are programs of one vendor, distributed by nobody else; xcover loads a program into the
//! kernel, which no builder allows, and is not in Debian either. Maven itself would be 150 MB for one file that it
//! reads: what is checked is the file.

use super::{build, failure, try_build};
use crate::support::farm::on_toolchains;

const STAND_INS: &str = include_str!("../definitions/pipelines/stand-ins.yaml");
const ABSENT: &str = include_str!("../definitions/pipelines/absent.yaml");

#[test]
fn absent_programs_get_their_arguments() {
    on_toolchains(async |farm| {
        let Some(stand_ins) = build(farm, "gobump", STAND_INS).await else { return };
        let repository = farm.repository("stand-ins", &stand_ins);
        let yaml = ABSENT
            .replace("@distro@", &farm.places.distro.display().to_string())
            .replace("@repository@", &repository.display().to_string());
        let built = build(farm, "absent", &yaml.replace("@least@", "42")).await.unwrap();
        let mut shown = String::new();
        for step in [
            "go/bump",
            "maven/pombump",
            "poms",
            "maven",
            "xcover/profile",
            "xcover/wait",
            "xcover/status",
            "xcover/stop",
            "xcover/ensure",
        ] {
            let lines = built.events.lines_of(&format!("absent: {step}"));
            shown.push_str(&format!("==> {step}\n{}\n", lines.join("\n")));
        }
        insta::assert_snapshot!("absent", shown);

        let built = try_build(farm, "absent", &yaml.replace("@least@", "42.6")).await.unwrap();
        let (step, tail) = failure(&built);
        assert_eq!(step, "absent: xcover/ensure");
        assert!(tail.contains("42.5% of the functions ran, at least 42.6% must"), "{tail}");
    });
}
