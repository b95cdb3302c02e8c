//! Typical failures of fetching and patching sources, and of adding packages.

use super::{FailureKind, Typical, each_is_told};

#[test]
fn each_is_told_by_its_line() {
    each_is_told(CASES);
}

pub(super) const CASES: &[Typical] = &[
    (
        "patch",
        r"patch: applying fix-build.patch
Hmm...  Looks like a unified diff to me...
patching file configure.ac
Hunk #1 succeeded at 12 (offset 3 lines).
Hunk #2 FAILED at 140.
1 out of 2 hunks FAILED -- saving rejects to file configure.ac.rej
done",
        FailureKind::Patch,
        "<n> out of <n> hunks FAILED -- saving rejects to file configure.ac.rej",
    ),
    (
        "git apply",
        "error: patch failed: src/main.c:12\nerror: src/main.c: patch does not apply",
        FailureKind::Patch,
        "error: patch failed: src/main.c:<n>",
    ),
    (
        "patch without its file",
        "can't find file to patch at input line 5\nPerhaps you used the wrong -p or --strip option?\nThe text leading up to this was:",
        FailureKind::Patch,
        "can't find file to patch at input line <n>",
    ),
    (
        "curl without a name server",
        "  % Total    % Received % Xferd  Average Speed\ncurl: (6) Could not resolve host: ftp.gnu.org",
        FailureKind::Network,
        "curl: (<n>) Could not resolve host: ftp.gnu.org",
    ),
    (
        "curl and a certificate",
        "curl: (60) SSL certificate problem: certificate has expired\nMore details here: https://curl.se/docs/sslcerts.html",
        FailureKind::Network,
        "curl: (<n>) SSL certificate problem: certificate has expired",
    ),
    (
        "curl and a file that is gone",
        "curl: (22) The requested URL returned error: 404",
        FailureKind::Network,
        "curl: (<n>) The requested URL returned error: <n>",
    ),
    (
        "wget without a name server",
        "--2026-11-25 10:00:01--  https://ftp.gnu.org/gnu/groff/groff-1.23.0.tar.gz\nResolving ftp.gnu.org (ftp.gnu.org)... failed: Temporary failure in name resolution.\nwget: unable to resolve host address ‘ftp.gnu.org’",
        FailureKind::Network,
        "Resolving ftp.gnu.org (ftp.gnu.org)... failed: Temporary failure in name resolution.",
    ),
    (
        "wget and a file that is gone",
        "HTTP request sent, awaiting response... 404 Not Found\n2026-11-25 10:00:01 ERROR 404: Not Found.",
        FailureKind::Network,
        "HTTP request sent, awaiting response... <n> Not Found",
    ),
    (
        "fetch and a checksum",
        r"Saving to: ‘groff-1.23.0.tar.gz’
2026-11-25 10:00:01 (9.1 MB/s) - ‘groff-1.23.0.tar.gz’ saved [7441022/7441022]
fetch: groff-1.23.0.tar.gz has the checksum 6b9757f592b7518b4902eb6af7e54570bdccba37a871fddb2d30ae3863511c13, expected was 00000007f592b7518b4902eb6af7e54570bdccba37a871fddb2d30ae3863511c",
        FailureKind::Checksum,
        "fetch: <pkg>-<ver>.tar.gz has the checksum <hash>, expected was <hash>",
    ),
    (
        "sha256sum",
        "tool.tar.gz: FAILED\nsha256sum: WARNING: 1 computed checksum did NOT match",
        FailureKind::Checksum,
        "sha256sum: WARNING: <n> computed checksum did NOT match",
    ),
    (
        "git-checkout and a commit",
        "git-checkout: the tag v1.2.3 is 5f3c2a1d0e9b8a7f6e5d4c3b2a1908f7e6d5c4b3, expected was 0f3c2a1d0e9b8a7f6e5d4c3b2a1908f7e6d5c4b3",
        FailureKind::Checksum,
        "git-checkout: the tag <ver> is <hash>, expected was <hash>",
    ),
    (
        "git without a network",
        "Cloning into 'src'...\nfatal: unable to access 'https://github.com/acme/tool.git/': Could not resolve host: github.com\ngit-checkout: try 1 failed, the next one comes in 2 s",
        FailureKind::Network,
        "fatal: unable to access '<url:github.com>': Could not resolve host: github.com",
    ),
    (
        "git without a branch",
        "Cloning into '.'...\nwarning: Could not find remote branch v9.9 to clone.\nfatal: Remote branch v9.9 not found in upstream origin",
        FailureKind::Missing,
        "fatal: Remote branch <ver> not found in upstream origin",
    ),
    (
        "git that asks for a password",
        "Cloning into 'src'...\nfatal: could not read Username for 'https://github.com': terminal prompts disabled",
        FailureKind::Error,
        "fatal: could not read Username for '<url:github.com>': terminal prompts disabled",
    ),
    (
        "apk without a package",
        "fetch https://packages.wolfi.dev/os/x86_64/APKINDEX.tar.gz\nERROR: unable to select packages:\n  so:libicuuc.so.74 (no such package):\n    required by: .deps[so:libicuuc.so.74]",
        FailureKind::Solver,
        "ERROR: unable to select packages: so:libicuuc.so.74 (no such package):",
    ),
    (
        "tar",
        "tar: Unexpected EOF in archive\ntar: Error is not recoverable: exiting now",
        FailureKind::Other,
        "tar: Error is not recoverable: exiting now",
    ),
];
