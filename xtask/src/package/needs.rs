//! What the programs need of a host: the libraries, and the oldest C library, by the versions of the symbols that they
//! use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use object::{
    Endianness,
    elf::{FileHeader64, SHT_DYNSYM},
    read::elf::{Dyn as _, FileHeader as _, Sym as _},
};

/// The C library of the oldest distribution that packages are for: Ubuntu 22.04.
const OLDEST: Version = Version(2, 35);

/// The libraries of the C library, and the one of the compiler that it needs itself.
const ALLOWED: [&str; 4] = ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-"];

/// A version of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// Reads `GLIBC_2.34`, also with a third number.
    fn parse(name: &str) -> Option<Self> {
        let mut numbers = name.strip_prefix("GLIBC_")?.split('.');
        let mut next = || numbers.next()?.parse().ok();
        Some(Self(next()?, next()?))
    }
}

/// What programs need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// The names of libraries, and the versions that symbols are bound to.
    pub(super) libraries: BTreeMap<String, BTreeSet<String>>,
    /// The symbols of the C library, by the version that they need.
    symbols: BTreeMap<Version, BTreeSet<String>>,
}

impl Needs {
    /// Reads programs.
    pub(super) fn of(programs: &[&Path]) -> Result<Self> {
        let mut needs = Self::default();
        for program in programs {
            let bytes =
                fs::read(program).with_context(|| format!("reading {}", program.display()))?;
            needs
                .read(&bytes)
                .with_context(|| format!("reading {}", program.display()))?;
        }
        Ok(needs)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        let elf = FileHeader64::<Endianness>::parse(bytes)?;
        let endian = elf.endian()?;
        let sections = elf.sections(endian, bytes)?;
        if let Some((dynamic, strings)) = sections.dynamic(endian, bytes)? {
            let strings = sections.strings(endian, bytes, strings)?;
            for entry in dynamic {
                if entry.tag(endian) == object::elf::DT_NEEDED {
                    let name = entry.string(endian, strings)?;
                    self.libraries.entry(text(name)).or_default();
                }
            }
        }
        let Some(versions) = sections.versions(endian, bytes)? else {
            return Ok(());
        };
        let symbols = sections.symbols(endian, bytes, SHT_DYNSYM)?;
        for (index, symbol) in symbols.enumerate() {
            let version = versions.version(versions.version_index(endian, index))?;
            let Some(version) = version.filter(|_| symbol.is_undefined(endian)) else {
                continue;
            };
            let name = text(version.name());
            if let Some(library) = version.file() {
                let of_library = self.libraries.entry(text(library)).or_default();
                of_library.insert(name.clone());
            }
            if let Some(version) = Version::parse(&name) {
                let symbol = text(symbol.name(endian, symbols.strings())?);
                self.symbols.entry(version).or_default().insert(symbol);
            }
        }
        Ok(())
    }

    /// The oldest C library that has all symbols.
    pub(super) fn glibc(&self) -> Result<Version> {
        let newest = self.symbols.keys().next_back();
        newest
            .copied()
            .context("no symbol of the C library is needed")
    }

    /// Fails if something else than the C library is needed, or a newer one than the oldest distribution has.
    pub(super) fn check(&self) -> Result<()> {
        for library in self.libraries.keys() {
            ensure!(
                ALLOWED.iter().any(|allowed| library.starts_with(allowed)),
                "the programs need {library}, which is not of the C library"
            );
        }
        let too_new: Vec<_> = self.symbols.range(OLDEST..).collect();
        let too_new: Vec<_> = too_new
            .into_iter()
            .filter(|(version, _)| **version > OLDEST)
            .map(|(version, symbols)| format!("{version}: {symbols:?}"))
            .collect();
        ensure!(
            too_new.is_empty(),
            "the programs need symbols of a C library that is newer than {OLDEST}: {}",
            too_new.join("; ")
        );
        Ok(())
    }
}

impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let libraries: Vec<_> = self.libraries.keys().map(String::as_str).collect();
        write!(f, "needs {}", libraries.join(", "))?;
        if let Some((version, symbols)) = self.symbols.iter().next_back() {
            let symbols: Vec<_> = symbols.iter().map(String::as_str).collect();
            write!(f, "; glibc {version} for {}", symbols.join(", "))?;
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(version: Version) -> Needs {
        Needs {
            libraries: BTreeMap::from([("libc.so.6".to_owned(), BTreeSet::new())]),
            symbols: BTreeMap::from([(version, BTreeSet::from(["a_symbol".to_owned()]))]),
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(Version::parse("GLIBC_2.2.5"), Some(Version(2, 2)));
        assert!(Version::parse("GLIBC_2.4") < Version::parse("GLIBC_2.34"));
        assert_eq!(Version::parse("GLIBC_PRIVATE"), None);
        assert_eq!(Version::parse("GCC_3.0"), None);
    }

    #[test]
    fn a_newer_c_library_is_refused_with_its_symbols() {
        needs(OLDEST).check().unwrap();
        let error = needs(Version(2, 36)).check().unwrap_err().to_string();
        assert!(error.contains("2.36: {\"a_symbol\"}"), "{error}");
    }

    #[test]
    fn another_library_is_refused() {
        let mut needs = needs(Version(2, 34));
        needs
            .libraries
            .insert("libz.so.1".to_owned(), BTreeSet::new());
        let error = needs.check().unwrap_err().to_string();
        assert!(error.contains("libz.so.1"), "{error}");
    }

    #[test]
    fn this_program_needs_the_c_library() {
        let own = std::env::current_exe().unwrap();
        let needs = Needs::of(&[&own]).unwrap();
        assert!(
            needs.libraries["libc.so.6"]
                .iter()
                .any(|name| name == "GLIBC_2.2.5" || name == "GLIBC_2.17")
        );
        assert!(needs.glibc().unwrap() >= Version(2, 17), "{needs}");
    }
}
