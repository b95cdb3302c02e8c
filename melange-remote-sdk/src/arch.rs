//! Architectures: one name as APK spells it, with the spellings of OCI and of the compilers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An architecture that packages are built for.
///
/// Both the APK and the OCI spelling are read; APK's is written.
///
/// ```
/// use melange_remote_sdk::arch::Arch;
/// let arch: Arch = "amd64".parse().unwrap();
/// assert_eq!(arch, Arch::X86_64);
/// assert_eq!(arch.to_string(), "x86_64");
/// assert!("z80".parse::<Arch>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Arch {
    /// 32-bit x86.
    X86,
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// ARM v6 with hardware floats.
    Armhf,
    /// ARM v7.
    Armv7,
    /// 64-bit LoongArch.
    Loongarch64,
    /// Little-endian 64-bit POWER.
    Ppc64le,
    /// 64-bit RISC-V.
    Riscv64,
    /// IBM Z.
    S390x,
}

/// APK name, OCI/Go name, OCI platform, GNU triplet and Rust triplet with `{}` for the libc flavor.
type Row = (Arch, &'static str, &'static str, &'static str, &'static str, &'static str);

const TABLE: [Row; 9] = [
    (Arch::X86, "x86", "386", "linux/386", "i486-pc-linux-{}", "i686-unknown-linux-{}"),
    (Arch::X86_64, "x86_64", "amd64", "linux/amd64", "x86_64-pc-linux-{}", "x86_64-unknown-linux-{}"),
    (
        Arch::Aarch64,
        "aarch64",
        "arm64",
        "linux/arm64",
        "aarch64-unknown-linux-{}",
        "aarch64-unknown-linux-{}",
    ),
    (
        Arch::Armhf,
        "armhf",
        "arm/v6",
        "linux/arm/v6",
        "arm-unknown-linux-{}eabihf",
        "armv6-unknown-linux-{}eabihf",
    ),
    (
        Arch::Armv7,
        "armv7",
        "arm/v7",
        "linux/arm/v7",
        "armv7l-unknown-linux-{}eabihf",
        "armv7-unknown-linux-{}eabihf",
    ),
    (
        Arch::Loongarch64,
        "loongarch64",
        "loong64",
        "linux/loong64",
        "loong64-unknown-linux-{}",
        "loong64-unknown-linux-{}",
    ),
    (
        Arch::Ppc64le,
        "ppc64le",
        "ppc64le",
        "linux/ppc64le",
        "powerpc64le-unknown-linux-{}",
        "powerpc64le-unknown-linux-{}",
    ),
    (
        Arch::Riscv64,
        "riscv64",
        "riscv64",
        "linux/riscv64",
        "riscv64-unknown-linux-{}",
        "riscv64-unknown-linux-{}",
    ),
    (Arch::S390x, "s390x", "s390x", "linux/s390x", "s390x-ibm-linux-{}", "s390x-unknown-linux-{}"),
];

impl Arch {
    /// Every architecture, in the order of the table of `docs`.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[1])
    }

    /// The APK name, such as `x86_64`.
    pub fn apk_name(self) -> &'static str {
        self.row().1
    }

    /// The name that Go and OCI use, such as `amd64` or `arm/v7`.
    pub fn oci_name(self) -> &'static str {
        self.row().2
    }

    /// The OCI platform, such as `linux/amd64`.
    pub fn oci_platform(self) -> &'static str {
        self.row().3
    }

    /// The GNU triplet with libc flavor `gnu` or `musl`.
    pub fn gnu_triplet(self, flavor: &str) -> String {
        self.row().4.replace("{}", flavor)
    }

    /// The Rust triplet with libc flavor `gnu` or `musl`.
    pub fn rust_triplet(self, flavor: &str) -> String {
        self.row().5.replace("{}", flavor)
    }

    /// The architecture that this program was compiled for, if packages can be built for it.
    pub fn host() -> Option<Self> {
        std::env::consts::ARCH.parse().ok()
    }
}

impl FromStr for Arch {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        TABLE.iter().find(|row| row.1 == text || row.2 == text).map(|row| row.0).ok_or_else(|| {
            let known: Vec<&str> = TABLE.iter().map(|row| row.1).collect();
            Error::invalid(format!("unknown architecture {text:?}"))
                .hint(format!("known: {}", known.join(", ")))
        })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.apk_name())
    }
}

impl TryFrom<String> for Arch {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Arch> for String {
    fn from(arch: Arch) -> Self {
        arch.apk_name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_parse_and_triplets_follow_the_table() {
        for arch in Arch::all() {
            assert_eq!(arch.apk_name().parse::<Arch>().unwrap(), arch);
            assert_eq!(arch.oci_name().parse::<Arch>().unwrap(), arch);
        }
        assert_eq!(Arch::Armhf.gnu_triplet("gnu"), "arm-unknown-linux-gnueabihf");
        assert_eq!(Arch::X86.rust_triplet("musl"), "i686-unknown-linux-musl");
    }
}
