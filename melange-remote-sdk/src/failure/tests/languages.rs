//! Typical failures of languages with tools of their own.

use super::{FailureKind, Typical, each_is_told};

#[test]
fn each_is_told_by_its_line() {
    each_is_told(CASES);
}

pub(super) const CASES: &[Typical] = &[
    (
        "rustc",
        r"   Compiling memchr v2.7.4
   Compiling tool v0.3.1 (/home/build)
warning: unused import: `std::mem`
error[E0425]: cannot find function `walk` in this scope
  --> src/main.rs:14:5
   |
14 |     walk(&path);
   |     ^^^^ not found in this scope

For more information about this error, try `rustc --explain E0425`.
error: could not compile `tool` (bin) due to 1 previous error; 1 warning emitted",
        FailureKind::Compile,
        "error[E0425]: cannot find function `walk` in this scope",
    ),
    (
        "cargo that links",
        r#"error: linking with `cc` failed: exit status: 1
  |
  = note:  "cc" "-m64" "/home/build/target/release/deps/tool-7d3f0c1b2a.o" "-lsqlite3"
  = note: /usr/bin/ld: cannot find -lsqlite3: No such file or directory
          collect2: error: ld returned 1 exit status

error: could not compile `tool` (bin "tool") due to 1 previous error"#,
        FailureKind::Missing,
        "= note: …/bin/ld: cannot find -lsqlite3: No such file or directory",
    ),
    (
        "cargo's build script",
        r"error: failed to run custom build command for `openssl-sys v0.9.104`

Caused by:
  process didn't exit successfully: `/home/build/target/release/build/openssl-sys-7d3f0c1b2a/build-script-main` (exit status: 101)
  --- stderr
  thread 'main' panicked at /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/openssl-sys-0.9.104/build/find_normal.rs:190:5:

  Could not find directory of OpenSSL installation",
        FailureKind::Compile,
        "error: failed to run custom build command for `openssl-sys <ver>`",
    ),
    (
        "cargo without a network",
        r#"    Updating crates.io index
warning: spurious network error (1 try remaining): [6] Could not resolve hostname (Could not resolve host: index.crates.io)
error: failed to get `serde` as a dependency of package `tool v0.3.1 (/home/build)`

Caused by:
  download of config.json failed

Caused by:
  [6] Could not resolve hostname (Could not resolve host: index.crates.io)"#,
        FailureKind::Network,
        "[<n>] Could not resolve hostname (Could not resolve host: index.crates.io)",
    ),
    (
        "cargo test",
        r"running 2 tests
test tests::adds ... ok
test tests::subtracts ... FAILED

failures:

---- tests::subtracts stdout ----

thread 'tests::subtracts' (4711) panicked at src/lib.rs:22:9:
assertion `left == right` failed
  left: 1
 right: 2

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: test failed, to rerun pass `--lib`",
        FailureKind::Test,
        "test tests::subtracts ... FAILED",
    ),
    (
        "go build",
        r"go: downloading golang.org/x/sys v0.30.0
# github.com/acme/tool/pkg/walk
pkg/walk/walk.go:31:15: undefined: filepath.WalkAll
pkg/walk/walk.go:40:2: declared and not used: n",
        FailureKind::Compile,
        "…/walk/walk.go:<n>: undefined: filepath.WalkAll",
    ),
    (
        "go without a module",
        "main.go:6:2: no required module provides package github.com/acme/other; to add it:\n\tgo get github.com/acme/other",
        FailureKind::Missing,
        "main.go:<n>: no required module provides package …/acme/other; to add it: go get …/acme/other",
    ),
    (
        "go without a network",
        r#"go: github.com/acme/other@v1.2.3: Get "https://proxy.golang.org/github.com/acme/other/@v/v1.2.3.mod": dial tcp: lookup proxy.golang.org on 10.0.0.2:53: no such host"#,
        FailureKind::Network,
        r#"go: …/acme/other@<ver>: Get "<url:proxy.golang.org>": dial tcp: lookup proxy.golang.org on <ip>: no such host"#,
    ),
    (
        "go that is too old",
        "go: go.mod requires go >= 1.25.1 (running go 1.24.4; GOTOOLCHAIN=local)",
        FailureKind::Error,
        "go: go.mod requires go >= <ver> (running go <ver>; GOTOOLCHAIN=local)",
    ),
    (
        "go test",
        r"ok  	github.com/acme/tool/pkg/list	0.004s
--- FAIL: TestWalk (0.01s)
    --- FAIL: TestWalk/links (0.00s)
        walk_test.go:52: got 3 entries, want 4
FAIL
FAIL	github.com/acme/tool/pkg/walk	0.015s
FAIL",
        FailureKind::Test,
        "--- FAIL: TestWalk (<n>)",
    ),
    (
        "pip without a package",
        r"Processing /home/build
ERROR: Could not find a version that satisfies the requirement hatchling>=1.27 (from versions: none)
ERROR: No matching distribution found for hatchling>=1.27",
        FailureKind::Missing,
        "ERROR: Could not find a version that satisfies the requirement hatchling>=<ver> (from versions: none)",
    ),
    (
        "pip that builds a wheel",
        r"  Building wheel for tool (pyproject.toml): started
  error: subprocess-exited-with-error

  × Building wheel for tool (pyproject.toml) did not run successfully.
  │ exit code: 1
  ╰─> [24 lines of output]
      running build_ext
      building 'tool._speed' extension
      gcc -fPIC -I/usr/include/python3.12 -c src/speed.c -o build/temp.linux-x86_64-cpython-312/src/speed.o
      src/speed.c:1:10: fatal error: Python.h: No such file or directory
      error: command '/usr/bin/gcc' failed with exit code 1
      [end of output]

  note: This error originates from a subprocess, and is likely not a problem with pip.
  ERROR: Failed building wheel for tool",
        FailureKind::Missing,
        "src/speed.c:<n>: fatal error: Python.h: No such file or directory",
    ),
    (
        "setuptools",
        r#"Traceback (most recent call last):
  File "/home/build/setup.py", line 5, in <module>
    from Cython.Build import cythonize
ModuleNotFoundError: No module named 'Cython'"#,
        FailureKind::Missing,
        "ModuleNotFoundError: No module named 'Cython'",
    ),
    (
        "pytest",
        r"tests/test_walk.py ..F.                                                  [100%]
=================================== FAILURES ===================================
__________________________________ test_links __________________________________

    def test_links():
>       assert walk('x') == 4
E       AssertionError: assert 3 == 4
E        +  where 3 = walk('x')

tests/test_walk.py:17: AssertionError
=========================== short test summary info ============================
FAILED tests/test_walk.py::test_links - AssertionError: assert 3 == 4
========================= 1 failed, 3 passed in 0.12s ==========================",
        FailureKind::Test,
        "E AssertionError: assert <n> == <n>",
    ),
    (
        "pytest that cannot load a test",
        r"==================================== ERRORS ====================================
_____________________ ERROR collecting tests/test_walk.py ______________________
ImportError while importing test module '/home/build/tests/test_walk.py'.
tests/test_walk.py:3: in <module>
    import hypothesis
E   ModuleNotFoundError: No module named 'hypothesis'
!!!!!!!!!!!!!!!!!!!! Interrupted: 1 error during collection !!!!!!!!!!!!!!!!!!!!",
        FailureKind::Missing,
        "E ModuleNotFoundError: No module named 'hypothesis'",
    ),
    (
        "npm without a network",
        r"npm warn deprecated glob@7.2.3: old
npm error code ENOTFOUND
npm error syscall getaddrinfo
npm error errno ENOTFOUND
npm error network request to https://registry.npmjs.org/left-pad failed, reason: getaddrinfo ENOTFOUND registry.npmjs.org
npm error A complete log of this run can be found in: /root/.npm/_logs/2026-11-25T10_00_01_000Z-debug-0.log",
        FailureKind::Network,
        "npm error network request to <url:registry.npmjs.org> failed, reason: getaddrinfo ENOTFOUND registry.npmjs.org",
    ),
    (
        "npm that finds no solution",
        r"npm error code ERESOLVE
npm error ERESOLVE unable to resolve dependency tree
npm error
npm error While resolving: tool@1.0.0
npm error Found: react@19.0.0",
        FailureKind::Solver,
        "npm error ERESOLVE unable to resolve dependency tree",
    ),
    (
        "tsc by npm",
        "> tool@1.0.0 build\n> tsc -p .\n\nsrc/walk.ts(14,7): error TS2322: Type 'string' is not assignable to type 'number'.\nnpm error Lifecycle script `build` failed with error:\nnpm error code 2",
        FailureKind::Compile,
        "src/walk.ts(<n>,<n>): error TS2322: Type 'string' is not assignable to type 'number'.",
    ),
    (
        "maven that compiles",
        r"[INFO] --- compiler:3.13.0:compile (default-compile) @ tool ---
[WARNING] system modules path not set
[ERROR] COMPILATION ERROR :
[INFO] -------------------------------------------------------------
[ERROR] /home/build/src/main/java/org/acme/Walk.java:[31,22] cannot find symbol
  symbol:   method walkAll()
[INFO] BUILD FAILURE
[ERROR] Failed to execute goal org.apache.maven.plugins:maven-compiler-plugin:3.13.0:compile (default-compile) on project tool: Compilation failure
[ERROR] -> [Help 1]",
        FailureKind::Compile,
        "[ERROR] …/acme/Walk.java:[<n>,<n>] cannot find symbol",
    ),
    (
        "maven without an artifact",
        "[INFO] BUILD FAILURE\n[ERROR] Failed to execute goal on project tool: Could not resolve dependencies for project org.acme:tool:jar:1.0: Could not find artifact org.acme:base:jar:2.0 in central (https://repo.maven.apache.org/maven2) -> [Help 1]",
        FailureKind::Missing,
        "[ERROR] Failed to execute goal on project tool: Could not resolve dependencies for project org.acme:tool:jar:<ver>: Could not find artifact org.acme:base:jar:<ver> in central (<url:repo.maven.apache.o",
    ),
    (
        "maven's tests",
        "[ERROR] Tests run: 4, Failures: 1, Errors: 0, Skipped: 0, Time elapsed: 0.05 s <<< FAILURE! -- in org.acme.WalkTest\n[ERROR] org.acme.WalkTest.links -- Time elapsed: 0.01 s <<< FAILURE!",
        FailureKind::Test,
        "[ERROR] Tests run: <n>, Failures: <n>, Errors: <n>, Skipped: <n>, Time elapsed: <n> s <<< FAILURE! -- in org.acme.WalkTest",
    ),
    (
        "gradle",
        r"> Task :processResources
> Task :generateGrammar FAILED

FAILURE: Build failed with an exception.

* What went wrong:
Execution failed for task ':generateGrammar'.
> There were errors during grammar generation

* Try:
> Run with --stacktrace option to get the stack trace.

BUILD FAILED in 12s",
        FailureKind::Error,
        "* What went wrong: Execution failed for task ':generateGrammar'.",
    ),
    (
        "gradle's compiler",
        "> Task :compileJava FAILED\n/home/build/src/main/java/org/acme/Walk.java:31: error: cannot find symbol\n        walkAll();\n1 error\n\nFAILURE: Build failed with an exception.",
        FailureKind::Compile,
        "…/acme/Walk.java:<n>: error: cannot find symbol",
    ),
    (
        "node's memory",
        "<--- Last few GCs --->\nFATAL ERROR: Ineffective mark-compacts near heap limit Allocation failed - JavaScript heap out of memory\nAborted (core dumped)",
        FailureKind::Memory,
        "FATAL ERROR: Ineffective mark-compacts near heap limit Allocation failed - JavaScript heap out of memory",
    ),
    (
        "perl",
        "Can't locate Locale/gettext.pm in @INC (you may need to install the Locale::gettext module) at help2man line 26.\nmake: *** [Makefile:9: x.1] Error 2",
        FailureKind::Missing,
        "Can't locate Locale/gettext.pm in @INC (you may need to install the Locale::gettext module) at help2man line <n>.",
    ),
];
