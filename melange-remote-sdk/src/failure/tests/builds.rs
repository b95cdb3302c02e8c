//! Typical failures of compilers, linkers, what configures a build, and the machine.

use super::{FailureKind, Typical, each_is_told};

#[test]
fn each_is_told_by_its_line() {
    each_is_told(CASES);
}

pub(super) const CASES: &[Typical] = &[
    (
        "gcc",
        r"gcc -DHAVE_CONFIG_H -I. -O2 -Wall -Werror=format-security -c -o src/error.o src/error.c
gcc -DHAVE_CONFIG_H -I. -O2 -Wall -Werror=format-security -c -o src/main.o src/main.c
src/error.c: In function ‘report’:
src/error.c:40:10: warning: unused variable ‘n’ [-Wunused-variable]
src/main.c: In function ‘main’:
src/main.c:12:3: error: implicit declaration of function ‘setlocale’ [-Wimplicit-function-declaration]
   12 |   setlocale (LC_ALL, NULL);
      |   ^~~~~~~~~
src/main.c:19:9: error: ‘x’ undeclared (first use in this function)
make[2]: *** [Makefile:612: src/main.o] Error 1
make[2]: *** Waiting for unfinished jobs....
make[1]: *** [Makefile:401: all-recursive] Error 1
make: *** [Makefile:330: all] Error 2",
        FailureKind::Compile,
        "src/main.c:<n>: error: implicit declaration of function ‘setlocale’ [-Wimplicit-function-declaration]",
    ),
    (
        "clang++ by ninja",
        r"[17/230] Building CXX object lib/CMakeFiles/core.dir/parse.cpp.o
[18/230] Building CXX object lib/CMakeFiles/core.dir/lex.cpp.o
FAILED: [code=1] lib/CMakeFiles/core.dir/lex.cpp.o
/usr/bin/clang++ -I/home/build/include -std=c++20 -MD -o lib/CMakeFiles/core.dir/lex.cpp.o -c /home/build/lib/lex.cpp
/home/build/lib/lex.cpp:88:14: error: no member named 'exchange' in namespace 'std'
   88 |         std::exchange(a, b);
      |         ~~~~~^
1 error generated.
ninja: build stopped: subcommand failed.",
        FailureKind::Compile,
        "…/lib/lex.cpp:<n>: error: no member named 'exchange' in namespace 'std'",
    ),
    (
        "missing header",
        r"cc -O2 -c compress.c
compress.c:3:10: fatal error: zlib.h: No such file or directory
    3 | #include <zlib.h>
      |          ^~~~~~~~
compilation terminated.
make: *** [Makefile:14: compress.o] Error 1",
        FailureKind::Missing,
        "compress.c:<n>: fatal error: zlib.h: No such file or directory",
    ),
    (
        "missing library",
        r"cc -o tool main.o -lzstd
/usr/bin/ld: cannot find -lzstd: No such file or directory
collect2: error: ld returned 1 exit status
make: *** [Makefile:22: tool] Error 1",
        FailureKind::Missing,
        "…/bin/ld: cannot find -lzstd: No such file or directory",
    ),
    (
        "undefined reference",
        r"/usr/bin/ld: /tmp/ccq81UBd.o: in function `main':
main.c:(.text.startup+0x1f): undefined reference to `deflateInit2_'
collect2: error: ld returned 1 exit status
make: *** [Makefile:9: tool] Error 1",
        FailureKind::Compile,
        "main.c:(.text.startup+<hex>): undefined reference to `deflateInit2_'",
    ),
    (
        "missing shared library",
        r"./gen-tables > tables.h
./gen-tables: error while loading shared libraries: libicuuc.so.74: cannot open shared object file: No such file or directory
make: *** [Makefile:40: tables.h] Error 127",
        FailureKind::Missing,
        "./gen-tables: error while loading shared libraries: libicuuc.so.74: cannot open shared object file: No such file or directory",
    ),
    (
        "missing command",
        r"+ ./autogen.sh
./autogen.sh: line 7: autoreconf: command not found",
        FailureKind::Missing,
        "./autogen.sh: line <n>: autoreconf: command not found",
    ),
    (
        "missing command in busybox",
        "+ makeinfo --version\n/home/build/.melange/run.sh: line 4: makeinfo: not found",
        FailureKind::Missing,
        "…/.melange/run.sh: line <n>: makeinfo: not found",
    ),
    (
        "autoconf without a pkg-config module",
        r"checking for pkg-config... /usr/bin/pkg-config
checking pkg-config is at least version 0.9.0... yes
checking for glib-2.0 >= 2.80... no
configure: error: Package requirements (glib-2.0 >= 2.80) were not met:

No package 'glib-2.0' found

Consider adjusting the PKG_CONFIG_PATH environment variable if you
installed software in a non-standard prefix.",
        FailureKind::Missing,
        "configure: error: Package requirements (glib-<ver> >= <ver>) were not met: No package 'glib-2.0' found",
    ),
    (
        "autoconf without a compiler that works",
        r"checking whether the C compiler works... no
configure: error: in '/home/build/bc-1.07.1':
configure: error: C compiler cannot create executables
See 'config.log' for more details",
        FailureKind::Configure,
        "configure: error: in '…/build/bc-<ver>': configure: error: C compiler cannot create executables",
    ),
    (
        "cmake without a package",
        r#"-- Detecting CXX compile features - done
-- Could NOT find Doxygen (missing: DOXYGEN_EXECUTABLE)
CMake Warning (dev) at CMakeLists.txt:12 (include):
CMake Error at CMakeLists.txt:30 (find_package):
  By not providing "FindFmt.cmake" in CMAKE_MODULE_PATH this project has
  asked CMake to find a package configuration file provided by "Fmt", but
  CMake did not find one.

-- Configuring incomplete, errors occurred!"#,
        FailureKind::Missing,
        r#"CMake Error at CMakeLists.txt:<n> (find_package): By not providing "FindFmt.cmake" in CMAKE_MODULE_PATH this project has"#,
    ),
    (
        "cmake that finds no library",
        r"CMake Error at /usr/share/cmake/Modules/FindPackageHandleStandardArgs.cmake:233 (message):
  Could NOT find ZLIB (missing: ZLIB_LIBRARY ZLIB_INCLUDE_DIR)
Call Stack (most recent call first):
  CMakeLists.txt:20 (find_package)",
        FailureKind::Missing,
        "CMake Error at …/Modules/FindPackageHandleStandardArgs.cmake:<n> (message): Could NOT find ZLIB (missing: ZLIB_LIBRARY ZLIB_INCLUDE_DIR)",
    ),
    (
        "cmake that refuses",
        r"CMake Error at CMakeLists.txt:2 (message):
  In-source builds are not allowed.

-- Configuring incomplete, errors occurred!",
        FailureKind::Configure,
        "CMake Error at CMakeLists.txt:<n> (message): In-source builds are not allowed.",
    ),
    (
        "meson without a dependency",
        r#"Run-time dependency libsystemd found: NO (tried pkgconfig and cmake)

../meson.build:412:12: ERROR: Dependency "libsystemd" not found, tried pkgconfig and cmake

A full log can be found at /home/build/output/meson-logs/meson-log.txt"#,
        FailureKind::Missing,
        r#"../meson.build:<n>: ERROR: Dependency "libsystemd" not found, tried pkgconfig and cmake"#,
    ),
    (
        "meson that refuses",
        "meson.build:7:2: ERROR: Problem encountered: big endian is not supported\n\nA full log can be found at /x/y/z.txt",
        FailureKind::Configure,
        "meson.build:<n>: ERROR: Problem encountered: big endian is not supported",
    ),
    (
        "make without a rule",
        "make: Entering directory '/home/build'\nmake: *** No rule to make target 'docs/tool.1', needed by 'all'.  Stop.",
        FailureKind::Missing,
        "make: *** No rule to make target 'docs/tool.<n>', needed by 'all'. Stop.",
    ),
    (
        "full disk",
        r"g++ -O2 -c huge.cc
/tmp/ccVb1lXh.s: Assembler messages:
/tmp/ccVb1lXh.s: Fatal error: can't write 24 bytes to section .text of huge.o: 'No space left on device'
make: *** [Makefile:7: huge.o] Error 1",
        FailureKind::Space,
        "…/tmp/<tmp>: Fatal error: can't write <n> bytes to section .text of huge.o: 'No space left on device'",
    ),
    (
        "full disk while copying",
        "cp: error writing '/home/build/melange-out/x/usr/lib/libx.a': No space left on device",
        FailureKind::Space,
        "cp: error writing '…/lib/libx.a': No space left on device",
    ),
    (
        "a compiler that the kernel takes",
        r"c++ -O3 -c codegen.cc
c++: fatal error: Killed signal terminated program cc1plus
compilation terminated.
make: *** [Makefile:7: codegen.o] Error 1",
        FailureKind::Memory,
        "c++: fatal error: Killed signal terminated program cc1plus",
    ),
    (
        "a program that crashes",
        "./tool --self-check\nSegmentation fault (core dumped)\nmake: *** [Makefile:90: check] Error 139",
        FailureKind::Signal,
        "Segmentation fault (core dumped)",
    ),
    (
        "ctest",
        r"      Start 11: roundtrip
11/12 Test #11: roundtrip ........................***Failed    0.02 sec
      Start 12: version
12/12 Test #12: version ..........................   Passed    0.01 sec

92% tests passed, 1 tests failed out of 12

The following tests FAILED:
	 11 - roundtrip (Failed)
Errors while running CTest",
        FailureKind::Test,
        "<n>/<n> Test #<n>: roundtrip ........................***Failed <n> sec",
    ),
    (
        "automake's tests",
        r"PASS: tests/a.sh
FAIL: tests/b.sh
XFAIL: tests/c.sh
# FAIL:  1
make[2]: *** [Makefile:733: test-suite.log] Error 1",
        FailureKind::Test,
        "FAIL: tests/b.sh",
    ),
    (
        "meson's tests",
        " 1/3 tool - a  OK    0.01s\n 2/3 tool - b  FAIL  0.02s   exit status 1\nFail:              1",
        FailureKind::Test,
        "<n>/<n> tool - b FAIL <n> exit status <n>",
    ),
];
