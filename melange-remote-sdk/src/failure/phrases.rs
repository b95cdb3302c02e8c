//! What tools say when something fails: the phrases of each kind of failure. A table.
//!
//! All phrases are in lower case and are looked for in lines in lower case; what depends on case, or on more than a
//! phrase, is in [`super::find`].

/// Where in a line a phrase stands.
#[derive(Debug, Clone, Copy)]
pub(super) enum Phrase {
    /// Anywhere.
    Has(&'static str),
    /// At the beginning, white space apart.
    Begins(&'static str),
    /// At the end.
    Ends(&'static str),
}

use Phrase::{Begins, Ends, Has};

impl Phrase {
    /// Whether a line, in lower case and without white space around it, has the phrase.
    pub(super) fn is_in(self, line: &str) -> bool {
        match self {
            Has(text) => line.contains(text),
            Begins(text) => line.starts_with(text),
            Ends(text) => line.ends_with(text),
        }
    }
}

/// Lines that follow from a failure told before them, or tell of none.
pub(super) const NOISE: &[Phrase] = &[
    Begins("ninja: build stopped"),
    Begins("error: script exited"),
    Begins("error: step exited"),
    Begins("[warning]"),
    Begins("cmake warning"),
    Begins("npm warn"),
    Begins("checking "),
    Begins("-- could not find"),
    Has("all warnings being treated as errors"),
    Begins("error: test failed, to rerun"),
    Begins("error: doctest failed, to rerun"),
    Begins("error: subprocess-exited-with-error"),
    Begins("error: metadata-generation-failed"),
    Begins("note: this error originates from a subprocess"),
    Begins("note: this is an issue with the package mentioned above"),
    Begins("for more information about this error, try"),
    Begins("[error] compilation error"),
    Begins("[error] failures:"),
    Begins("[error] errors:"),
    Begins("[error] -> [help"),
    Begins("[error] [help"),
    Begins("[error] to see the full stack trace"),
    Begins("[error] re-run maven"),
    Begins("[error] for more information about the errors"),
    Begins("failure: build failed with an exception"),
    Begins("npm error code "),
    Begins("npm error errno "),
    Begins("npm error syscall "),
    Begins("npm error path "),
    Begins("npm error a complete log of this run"),
    Begins("npm err! code "),
    Begins("npm err! errno "),
    Begins("npm err! syscall "),
    Begins("npm err! path "),
    Begins("npm err! a complete log of this run"),
];

/// Lines that only say that a tool which told its error elsewhere has failed; they count when there is nothing better.
pub(super) const FOLLOWS: &[Phrase] = &[
    Has("error: linking with `"),
    Has("collect2: error: ld returned"),
    Has("error: linker command failed"),
    Begins("error: command '"),
    Begins("error: could not compile `"),
    Begins("error: failed to get `"),
    Begins("error: aborting due to"),
];

/// Packages that cannot be chosen.
pub(super) const SOLVER: &[Phrase] = &[
    Has("unsatisfiable constraint"),
    Has("unsatisfiable dependenc"),
    Has("nothing provides"),
    // The farm's own solver.
    Has("nothing that provides"),
    Has("could not find package"),
    Has("unable to select packages"),
    Has(": solving "),
    Has(" eresolve "),
    Has("unable to resolve dependency tree"),
    Has("failed to select a version for"),
];

/// Content that is not what was expected.
pub(super) const CHECKSUM: &[Phrase] = &[
    Has("checksum mismatch"),
    Has("hash mismatch"),
    Has("expected sha256"),
    Has("expected sha512"),
    Has("expected commit"),
    // The pipeline `fetch`; of `git-checkout` see [`super::find`].
    Has(" has the checksum "),
    Has("computed checksum"),
    Has(" eintegrity "),
    Has("do not match the hashes"),
    Has("changed between lock files"),
    // The farm's own, of packages.
    Has("is not the package that the index lists"),
    Has("does not have its recorded "),
];

/// Patches that do not apply.
pub(super) const PATCH: &[Phrase] = &[
    Has("failed -- saving rejects"),
    Has("patch does not apply"),
    Has("error: patch failed:"),
    Has("can't find file to patch"),
    Has("malformed patch at line"),
    Has("only garbage was found in the patch input"),
    Has("reversed (or previously applied) patch detected"),
];

/// Sources that a compiler, a linker or an interpreter refuses; see also [`super::find`].
pub(super) const COMPILE: &[Phrase] = &[
    Has("undefined reference to"),
    Has("ld: cannot find"),
    Has("syntaxerror"),
    Has("syntax error near"),
    Has("cannot find package"),
    Has("no required module"),
    Begins("cmake error"),
    Begins("e: file://"),
];

/// Tests that fail; see also [`super::find`].
pub(super) const TEST: &[Phrase] = &[
    Has("assertionerror"),
    Has("panicked at"),
    Has(": assertion `"),
    Has("***failed"),
    Has("***exception"),
    Has("***timeout"),
    Has("<<< failure!"),
    Has("<<< error!"),
];

/// Things that are not there.
pub(super) const MISSING: &[Phrase] = &[
    Has("command not found"),
    Has("no such file or directory"),
    Has("not found:"),
    Ends(": not found"),
    Has("not found, tried"),
    Has("not found or not executable"),
    Has("cannot open shared object"),
    Has("cannot open file"),
    Has("can't open file"),
    Has("was not found in the pkg-config search path"),
    Has("no package '"),
    Has("could not find a package"),
    Has("could not find module"),
    Has("could not find a version that satisfies"),
    Has("could not find artifact"),
    Has("no matching distribution found"),
    Has("no matching version found"),
    Has("no matching package named"),
    Has("no module named"),
    Has("modulenotfounderror"),
    Has("cannot find module"),
    Has("ld: cannot find"),
    Has("unable to find library"),
    Has("cannot find package"),
    Has("no required module"),
    Has("is not in std"),
    Has("can't find crate for"),
    Has("no rule to make target"),
    Has("missing and no known rule to make it"),
    Has("executable file not found"),
    Has("unable to locate package"),
    Has("can't locate "),
    Has("cannot load such file"),
];

/// The same, of lines that are known to tell of an error: in others these phrases say too little.
pub(super) const MISSING_OF_ERRORS: &[Phrase] = &[
    Has("were not met"),
    Has("(find_package)"),
    Has("could not find "),
    Ends(" not found"),
    Ends(" not found."),
    Ends(" is required"),
    Has("` not found"),
    Has("remote branch "),
];

/// Hosts, connections, certificates and answers of servers.
pub(super) const NETWORK: &[Phrase] = &[
    Has("could not resolve host"),
    Has("unable to resolve host"),
    Has("bad address '"),
    Has("no such host"),
    Has("name resolution"),
    Has("name or service not known"),
    Has(" enotfound "),
    Has("unknown host"),
    Has("unknownhostexception"),
    Has("connection refused"),
    Has("connection reset"),
    Has("connection timed out"),
    Has("network is unreachable"),
    Has("no route to host"),
    Has("operation timed out"),
    Has("i/o timeout"),
    Has("tls handshake"),
    Has("tls connect error"),
    Has("certificate verif"),
    Has("certificate problem"),
    Has("certificate has expired"),
    Has("certificate of "),
    Has("self-signed certificate"),
    Has("self signed certificate"),
    Has("local issuer certificate"),
    Has("x509:"),
    Has("ssl routines"),
    Has("could not transfer artifact"),
    Has("failed to download from"),
    Has("the remote end hung up"),
    Has("could not read from remote repository"),
    Has("rpc failed; curl"),
];

/// Answers of servers to a request for something that they do not give; the request itself is told in a line before.
pub(super) const ANSWERS: &[Phrase] = &[
    Has("the requested url returned error"),
    Has("404 not found"),
    Has("error 404"),
    Has("410 gone"),
    Has("403 forbidden"),
    Has("error 403"),
    Has("429 too many requests"),
    Has("502 bad gateway"),
    Has("error 502"),
    Has("503 service unavailable"),
    Has("error 503"),
];

/// Full disks.
pub(super) const SPACE: &[Phrase] =
    &[Has("no space left on device"), Has("disk quota exceeded"), Has("enospc")];

/// Memory that ran out.
pub(super) const MEMORY: &[Phrase] = &[
    Ends("killed"),
    Has("killed signal terminated"),
    Has("internal compiler error: killed"),
    Has("signal: killed"),
    Has("sigkill: kill"),
    Has("out of memory"),
    Has("outofmemoryerror"),
    Has("virtual memory exhausted"),
    Has("cannot allocate memory"),
    Has("memory allocation of "),
    Has("std::bad_alloc"),
];

/// Processes that ended by a signal.
pub(super) const SIGNAL: &[Phrase] = &[
    Has("segmentation fault"),
    Has("core dumped"),
    Has("illegal instruction"),
    Has("bus error"),
    Has("(signal: "),
    Has("sigsegv"),
    Begins("aborted"),
    Ends(": aborted"),
    Ends("] aborted"),
];

/// Programs that stop because of a mistake of theirs, told where errors of compilers are told.
pub(super) const CRASH: &[Phrase] = &[Begins("panic: "), Has("runtime error:")];

/// Refusals of what configures a source tree.
pub(super) const CONFIGURE: &[Phrase] =
    &[Has("configure: error:"), Begins("cmake error"), Has("meson.build:"), Has("configure.ac:")];

/// What tools say before what is an error of theirs; see also [`super::find`].
pub(super) const ERROR: &[Phrase] = &[
    Begins("[error] "),
    Begins("npm error "),
    Begins("npm err! "),
    Begins("fatal:"),
    Has(": fatal:"),
    Begins("panic:"),
    Begins("exception in thread"),
    Begins("* what went wrong:"),
    Begins("failed: "),
    Begins("failed to "),
    Begins("build failed"),
    Begins("abort:"),
    Begins("go: go.mod "),
    Begins("go: updates to go.mod"),
    Begins("go: inconsistent vendoring"),
    Begins("go: cannot "),
    Has("requires go >= "),
    Has("permission denied"),
    Has("operation not permitted"),
    Has("text file busy"),
    Has("unrecognized option"),
    Has("unrecognized argument"),
    Has("invalid option"),
    Has("unknown option"),
];
