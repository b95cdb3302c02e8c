//! Debian version numbers as APK version numbers.
//!
//! An APK version has a far smaller grammar than a Debian one, so epochs and repacking marks are dropped. Only the
//! newest version of a package is ever in the repository: the order among versions of one package need not survive
//! beyond what a test may look at (a security update is newer than the release).

use anyhow::{Context, Result, ensure};
use regex::Regex;

/// The grammar APK tools accept.
const APK_VERSION: &str = r"^\d+(\.\d+)*[a-z]?(_(alpha|beta|pre|rc)\d*)?(_(cvs|svn|git|hg|p)\d*)?(-r\d+)?$";

/// Turns a Debian version into an APK version with a revision.
///
/// `1:2.36-9+deb12u4` becomes `2.36-r90400`: an update of a stable release (`debNuM`) and a rebuild (`+bN`) are
/// folded into the revision.
pub fn apk_version(debian: &str) -> Result<String> {
    let version = debian.split_once(':').map_or(debian, |(_, rest)| rest);
    let (upstream, revision) = version.rsplit_once('-').unwrap_or((version, "0"));
    // A package that went back to an older release says so: 5.6.1+really5.4.5.
    let upstream = upstream.split_once("+really").map_or(upstream, |(_, rest)| rest.trim_start_matches('+'));

    let numbers = find(r"^\d+(\.\d+)*", upstream)?.context("it does not start with a number")?;
    let mut rest = &upstream[numbers.len()..];
    let mut result = numbers.to_owned();
    if let Some(letter) = find(r"^[a-z]([^a-z]|$)", rest)? {
        result.push_str(&letter[..1]);
        rest = &rest[1..];
    }
    if let Some(found) = Regex::new(r"^~(alpha|beta|pre|rc)\.?(\d*)")?.captures(rest) {
        result.push_str(&format!("_{}{}", &found[1], &found[2]));
    } else if let Some(found) = Regex::new(r"^[+.~](?:git|svn|cvs)?(\d{8})")?.captures(rest) {
        result.push_str(&format!("_p{}", &found[1]));
    }
    result.push_str(&format!("-r{}", fold_revision(version, revision)?));
    ensure!(is_apk_version(&result)?, "Debian version {debian:?} became {result:?}, which no APK tool reads");
    Ok(result)
}

/// Whether the text is a version in the APK grammar.
pub fn is_apk_version(text: &str) -> Result<bool> {
    Ok(Regex::new(APK_VERSION)?.is_match(text))
}

/// One number out of a Debian revision, its stable update and its rebuild.
fn fold_revision(version: &str, revision: &str) -> Result<u64> {
    let leading: u64 = find(r"^\d+", revision)?.unwrap_or("0").parse()?;
    let update = number_after(r"deb\d+u(\d+)", version)?;
    let rebuild = number_after(r"\+b(\d+)", version)?;
    if update.is_none() && rebuild.is_none() {
        return Ok(leading);
    }
    Ok(leading * 10_000 + update.unwrap_or(0) * 100 + rebuild.unwrap_or(0))
}

fn number_after(pattern: &str, text: &str) -> Result<Option<u64>> {
    Regex::new(pattern)?.captures(text).map(|found| Ok(found[1].parse()?)).transpose()
}

fn find<'a>(pattern: &str, text: &'a str) -> Result<Option<&'a str>> {
    Ok(Regex::new(pattern)?.find(text).map(|found| found.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_versions_become_apk_versions() {
        for (debian, apk) in [
            ("12.2.0-14+deb12u1", "12.2.0-r140100"),
            ("1:2.39.5-0+deb12u3", "2.39.5-r300"),
            ("2.41-12+deb13u4+b1", "2.41-r120401"),
            ("5.2.15-2+b13", "5.2.15-r20013"),
            ("4:12.2.0-3", "12.2.0-r3"),
            ("20230311+deb12u1", "20230311-r100"),
            ("2:6.2.1+dfsg1-1.1", "6.2.1-r1"),
            ("1.1.2~rc1-1", "1.1.2_rc1-r1"),
            ("2.11.5+20250216-3", "2.11.5_p20250216-r3"),
            ("5.6.1+really5.4.5-1", "5.4.5-r1"),
            ("2.0207+dfsg+really+2.0134-1+b1", "2.0134-r10001"),
            ("9e-3", "9e-r3"),
            ("2.72-3.1", "2.72-r3"),
            ("6.1.176-1", "6.1.176-r1"),
        ] {
            assert_eq!(apk_version(debian).unwrap(), apk, "{debian}");
        }
    }

    #[test]
    fn a_version_without_a_number_is_refused() {
        assert!(apk_version("unknown-1").is_err());
    }
}
