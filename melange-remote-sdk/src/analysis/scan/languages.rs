//! Folders of modules of languages, and the interpreter that they need.

use std::sync::LazyLock;

use regex::Regex;

use crate::apk::tree::{EntryKind, Tree};

/// Versions of folders of gems. The odd class is melange's; with it, folders such as `3.3.5` are no folders of gems.
static GEMS: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[0-9].*\.[0-9].*\.[0.9].*$").ok());

/// What the modules in a tree need, beside what the package declares.
pub(super) fn needs(tree: &Tree, declared: &[String]) -> Vec<String> {
    // The path with its parts, of folders below `usr` before others: the first one counts.
    let mut perl: [Option<String>; 2] = Default::default();
    let mut ruby: [Option<String>; 2] = Default::default();
    let mut python = None;
    for (path, entry) in tree.iter() {
        let parts: Vec<&str> = path.parts().iter().map(String::as_str).collect();
        if let [.., parent, "site-packages"] = parts[..]
            && let Some(version) = parent.strip_prefix("python")
            && entry.kind == EntryKind::Directory
        {
            python = Some(version.to_owned());
        }
        let (place, below) = match parts.split_first() {
            Some((&"usr", below)) => (0, below),
            _ => (1, &parts[..]),
        };
        match below {
            ["lib", folder, child] if child.ends_with("_perl") => {
                let version = folder.strip_prefix("perl");
                let version = version.filter(|version| version.starts_with(|c: char| c.is_ascii_digit()));
                put(&mut perl, place, version);
            }
            ["lib", "ruby", "gems", version, "gems"] => {
                let is_one = GEMS.as_ref().is_some_and(|gems| gems.is_match(version));
                let short = version.rsplit_once('.').map(|(short, _)| short);
                put(&mut ruby, place, short.filter(|short| is_one && !short.is_empty()));
            }
            _ => {}
        }
    }
    let declares = |test: &dyn Fn(&str) -> bool| declared.iter().any(|item| test(item));
    let first = |[below_usr, other]: [Option<String>; 2]| below_usr.or(other);
    let mut needs = Vec::new();
    if let Some(version) = first(perl).filter(|_| !declares(&|item| item == "perl")) {
        needs.push(format!("perl~{version}"));
    }
    let python = python.filter(|version| !version.is_empty());
    if let Some(version) = python.filter(|_| !declares(&|item| item.starts_with("python"))) {
        needs.push(format!("python-{version}-base"));
    }
    let declares_ruby = |item: &str| item == "ruby" || item.starts_with("ruby-");
    if let Some(version) = first(ruby).filter(|_| !declares(&declares_ruby)) {
        needs.push(format!("ruby-{version}"));
    }
    needs
}

/// Keeps the first one.
fn put(found: &mut [Option<String>; 2], place: usize, version: Option<&str>) {
    if let (Some(slot @ None), Some(version)) = (found.get_mut(place), version) {
        *slot = Some(version.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs_of(paths: &[&str], declared: &[&str]) -> Vec<String> {
        let mut tree = Tree::default();
        paths.iter().for_each(|path| tree.add_file(path, 0o644, b"").unwrap());
        needs(&tree, &declared.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn interpreters_of_modules() {
        assert_eq!(
            needs_of(&["usr/lib/perl5/vendor_perl/x", "lib/perl4/site_perl/x"], &["perl-x"]),
            ["perl~5"]
        );
        assert_eq!(needs_of(&["lib/perl5.36/site_perl/x"], &[]), ["perl~5.36"]);
        assert!(needs_of(&["usr/lib/perl5/vendor_perl/x"], &["perl"]).is_empty());
        assert!(needs_of(&["usr/lib/perlx/vendor_perl/x"], &[]).is_empty());
        let pythons = ["usr/lib/python3.12/site-packages/a", "usr/lib/python3.13/site-packages/b"];
        assert_eq!(needs_of(&pythons, &[]), ["python-3.13-base"]);
        assert!(needs_of(&pythons, &["python-3.12"]).is_empty());
        assert!(needs_of(&["usr/lib/python/site-packages/a"], &[]).is_empty());
        let gem = |version: &str| format!("usr/lib/ruby/gems/{version}/gems/x/y");
        assert_eq!(needs_of(&[&gem("3.3.0")], &["rubyx"]), ["ruby-3.3"]);
        assert!(needs_of(&[&gem("3.3.0")], &["ruby-3.2"]).is_empty());
        assert!(needs_of(&[&gem("3.3.5")], &[]).is_empty());
    }
}
