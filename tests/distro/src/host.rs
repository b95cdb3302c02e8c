//! Where this machine gets its Debian packages from: read out of its own apt sources, so that no address has to be
//! written down.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::deb::Control;

/// One entry of the machine's apt sources, with one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The archive's address.
    pub uri: String,
    /// The suites asked for.
    pub suites: Vec<String>,
    /// The components asked for.
    pub components: Vec<String>,
    /// The keyring's path, or the key itself; empty for apt's own keyrings.
    pub signed_by: String,
    /// Whether signatures do not matter.
    pub trusted: bool,
}

/// The archive of a suite: the entry for that suite, or that for the machine's own release (Debian keeps all suites
/// in one archive).
pub fn archive(etc: &Path, suite: &str) -> Result<Origin> {
    let release = fs::read_to_string(etc.join("os-release")).unwrap_or_default();
    let own = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
    let origins = read_sources(&etc.join("apt"))?;
    choose(&origins, suite, own.trim_matches('"')).cloned().with_context(|| {
        format!("the machine's apt sources name no Debian archive with {suite:?} or {own:?}")
    })
}

/// Reads all files apt would read.
fn read_sources(apt: &Path) -> Result<Vec<Origin>> {
    let mut origins = Vec::new();
    if let Ok(text) = fs::read_to_string(apt.join("sources.list")) {
        origins.extend(parse_lines(&text));
    }
    let mut parts = Vec::new();
    if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
        for entry in entries {
            parts.push(entry?.path());
        }
    }
    parts.sort();
    for path in parts {
        let read = || fs::read_to_string(&path).with_context(|| path.display().to_string());
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => origins.extend(parse_lines(&read()?)),
            Some("sources") => origins.extend(parse_paragraphs(&read()?)),
            _ => {}
        }
    }
    Ok(origins)
}

/// The best entry: of the suite before the machine's own, and Debian's keys before others (third parties name their
/// suites after Debian's).
fn choose<'a>(origins: &'a [Origin], suite: &str, own: &str) -> Option<&'a Origin> {
    let rank = |origin: &Origin| {
        let wanted =
            [suite, own, "stable"].iter().position(|name| origin.suites.iter().any(|has| has == name));
        let debian = origin.signed_by.contains("debian-archive");
        let named = origin.uri.trim_end_matches('/').ends_with("/debian");
        wanted.map(|place| (!debian, !named, place))
    };
    origins
        .iter()
        .filter(|origin| origin.components.iter().any(|component| component == "main"))
        .filter_map(|origin| Some((rank(origin)?, origin)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, origin)| origin)
}

/// Sources in the format of one line each.
fn parse_lines(text: &str) -> Vec<Origin> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Origin> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => ("", rest),
    };
    let option =
        |key: &str| options.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or_default();
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Origin {
        uri: words.next()?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: option("signed-by=").to_owned(),
        trusted: option("trusted=") == "yes",
    })
}

/// Sources in the format of paragraphs.
fn parse_paragraphs(text: &str) -> Vec<Origin> {
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    text.split("\n\n")
        .map(Control::parse)
        .filter(|source| words(source.get("Types")).iter().any(|kind| kind == "deb"))
        .filter(|source| source.get("Enabled") != "no")
        .flat_map(|source| {
            let signed_by = source.get("Signed-By").trim().to_owned();
            let uris = words(source.get("URIs"));
            uris.into_iter().map(move |uri| Origin {
                uri,
                suites: words(source.get("Suites")),
                components: words(source.get("Components")),
                signed_by: signed_by.clone(),
                trusted: source.get("Trusted") == "yes",
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "# comment\ndeb-src http://a.invalid/debian bookworm main\n\
        deb [arch=amd64 signed-by=/k.gpg] http://b.invalid/debian bookworm main contrib # tail\n\
        deb http://c.invalid/debian-security bookworm-security main\n\
        deb [trusted=yes] file:/srv/debian trixie main\n";
    const PARAGRAPHS: &str = "Types: deb deb-src\n# comment\nURIs: http://third.invalid/apt\nSuites: bookworm\n\
        Components: main\nSigned-By: /third.gpg\n\nTypes: deb\nURIs: http://a.invalid/debian http://b.invalid/debian\n\
        Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
        Enabled: no\nTypes: deb\nURIs: http://off.invalid/debian\nSuites: sid\nComponents: main\n\n\
        Types: deb\nURIs: http://key.invalid/x\nSuites: y\nComponents: main\nSigned-By:\n -----BEGIN-----\n .\n abc\n";

    #[test]
    fn lines_are_read() {
        let origins = parse_lines(LINES);
        assert_eq!(origins.len(), 3);
        assert_eq!(origins[0].uri, "http://b.invalid/debian");
        assert_eq!(origins[0].signed_by, "/k.gpg");
        assert_eq!(origins[0].components, ["main", "contrib"]);
        assert!(origins[2].trusted);
    }

    #[test]
    fn paragraphs_are_read() {
        let origins = parse_paragraphs(PARAGRAPHS);
        assert_eq!(origins.len(), 4);
        assert_eq!(origins[2].uri, "http://b.invalid/debian");
        assert_eq!(origins[3].signed_by, "-----BEGIN-----\n.\nabc");
    }

    #[test]
    fn the_archive_is_debians() {
        let origins = parse_paragraphs(PARAGRAPHS);
        assert_eq!(choose(&origins, "bookworm", "bookworm").unwrap().uri, "http://a.invalid/debian");
        assert_eq!(choose(&origins, "trixie", "bookworm").unwrap().uri, "http://a.invalid/debian");
        assert_eq!(choose(&parse_lines(LINES), "trixie", "bookworm").unwrap().uri, "file:/srv/debian");
        assert_eq!(choose(&origins, "trixie", "forky"), None);
    }
}
