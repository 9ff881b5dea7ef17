//! What a release consists of: program, tarball, Debian package, sums, and what is in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::release::archive::{Item, ar, gzip, tar};
use crate::release::sbom;
use crate::release::version::Version;
use crate::shell::{self, Failure};

const PACKAGE: &str = "inflightkv";
const MUSL: &str = "x86_64-unknown-linux-musl";

pub(super) struct Artefacts<'a> {
    pub(super) root: &'a Path,
    pub(super) version: Version,
    /// What every file is dated, in seconds since 1970.
    pub(super) epoch: u64,
    /// Packed as it is, where it is not to be built.
    pub(super) program: Option<&'a Path>,
}

/// What [`Artefacts::make`] does, for a rehearsal.
pub(super) fn steps(version: Version, once: bool) -> Vec<String> {
    let times = if once {
        "once"
    } else {
        "twice, and compare the bytes"
    };
    let auditable = if is_auditable() {
        "with the list of its dependencies in it (cargo-auditable)"
    } else {
        "without the list of its dependencies in it (`cargo install cargo-auditable` would have it)"
    };
    let musl = if has_musl() {
        format!("also build it for {MUSL}")
    } else {
        format!(
            "leave out {MUSL} (`rustup target add {MUSL}` and `apt-get install musl-tools` would have it)"
        )
    };
    vec![
        format!("build {times}: whole-program optimisation, stripped, {auditable}"),
        musl,
        format!(
            "pack {PACKAGE}-{version}-*.tar.gz and {PACKAGE}_{version}-1_*.deb: man page, completions, systemd unit, licences"
        ),
        "write the SBOM (CycloneDX) and SHA256SUMS".to_owned(),
    ]
}

impl Artefacts<'_> {
    /// Builds into a folder of its own, from nothing, and gives back where the artefacts are.
    pub(super) fn make(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.folder(name)?;
        let out = folder.join("out");
        if out.exists() {
            fs::remove_dir_all(&out).map_err(failed(&out))?;
        }
        fs::create_dir_all(&out).map_err(failed(&out))?;
        let host = host()?;
        let architecture = host.split('-').next().unwrap_or_default();
        let program = self.build(&folder.join("target"), None)?;
        let files = self.files(&program)?;
        let mut made = vec![
            (
                format!("{PACKAGE}-{}-{host}.tar.gz", self.version),
                self.tarball(&files, &host)?,
            ),
            (
                format!("{PACKAGE}_{}-1_{}.deb", self.version, debian(architecture)),
                self.deb(&files, &program, architecture)?,
            ),
            (
                format!("{PACKAGE}-{}.cdx.json", self.version),
                self.sbom()?.into_bytes(),
            ),
        ];
        if has_musl() && self.program.is_none() {
            let program = self.build(&folder.join("target"), Some(MUSL))?;
            let files = self.files(&program)?;
            made.push((
                format!("{PACKAGE}-{}-{MUSL}.tar.gz", self.version),
                self.tarball(&files, MUSL)?,
            ));
        }
        made.sort();
        let mut sums = String::new();
        for (name, bytes) in &made {
            let path = out.join(name);
            fs::write(&path, bytes).map_err(failed(&path))?;
            sums.push_str(&format!("{}  {name}\n", hex(&Sha256::digest(bytes))));
        }
        let path = out.join("SHA256SUMS");
        fs::write(&path, sums).map_err(failed(&path))?;
        Ok(out)
    }

    /// An error that names the first file which is not the same in both folders.
    pub(super) fn demand_same(&self, one: &Path, other: &Path) -> Result<(), Failure> {
        let names = |folder: &Path| -> Result<Vec<String>, Failure> {
            let mut names = Vec::new();
            for entry in fs::read_dir(folder).map_err(failed(folder))? {
                names.push(
                    entry
                        .map_err(failed(folder))?
                        .file_name()
                        .to_string_lossy()
                        .into_owned(),
                );
            }
            names.sort();
            Ok(names)
        };
        if names(one)? != names(other)? {
            return Err(Failure("two builds made different files".to_owned()));
        }
        for name in names(one)? {
            let read = |folder: &Path| fs::read(folder.join(&name)).map_err(failed(folder));
            if read(one)? != read(other)? {
                return Err(Failure(format!(
                    "{name} is not the same in {} and {}; compare them with diffoscope",
                    one.display(),
                    other.display()
                )));
            }
        }
        Ok(())
    }

    /// Puts the artefacts where a person looks for them.
    pub(super) fn publish(&self, out: &Path) -> Result<PathBuf, Failure> {
        let folder = self.folder("")?;
        for entry in fs::read_dir(out).map_err(failed(out))? {
            let from = entry.map_err(failed(out))?.path();
            let to = folder.join(from.file_name().unwrap_or_default());
            fs::copy(&from, &to).map_err(failed(&to))?;
            println!("{}", to.display());
        }
        Ok(folder)
    }

    fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let target = shell::target()?;
        Ok(target.join(format!("release-{}", self.version)).join(name))
    }

    /// The program: everything in it that could tell where it was built is replaced.
    fn build(&self, target: &Path, triple: Option<&str>) -> Result<PathBuf, Failure> {
        if let (Some(program), None) = (self.program, triple) {
            return fs::canonicalize(program).map_err(failed(program));
        }
        let mut cargo = shell::cargo(self.root);
        if is_auditable() {
            cargo.arg("auditable");
        } else {
            println!(
                "the program will not list its dependencies, only the SBOM does: cargo-auditable is not installed \
                 (`cargo install cargo-auditable`)"
            );
        }
        cargo.args([
            "build",
            "--locked",
            "--profile",
            "dist",
            "--package",
            "inflightkv-server",
        ]);
        cargo
            .args(["--bin", PACKAGE])
            .arg("--target-dir")
            .arg(target);
        if let Some(triple) = triple {
            cargo.args(["--target", triple]);
        }
        let home = std::env::var("CARGO_HOME").ok().or_else(|| {
            let home = std::env::var("HOME").ok()?;
            Some(format!("{home}/.cargo"))
        });
        let root = fs::canonicalize(self.root).map_err(failed(self.root))?;
        let mut places = vec![
            (target.display().to_string(), "/target"),
            (root.display().to_string(), "/source"),
        ];
        places.extend(home.map(|home| (home, "/cargo")));
        let map = |flag: &str| {
            let flags = places.iter().map(|(from, to)| format!("{flag}{from}={to}"));
            flags.collect::<Vec<_>>()
        };
        // Separated by the unit separator, so that a folder may have a space in its name.
        cargo.env(
            "CARGO_ENCODED_RUSTFLAGS",
            map("--remap-path-prefix=").join("\u{1f}"),
        );
        cargo.env("CFLAGS", map("-ffile-prefix-map=").join(" "));
        cargo.env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        cargo.env_remove("RUSTFLAGS");
        println!("building {}", target.display());
        shell::run(&mut cargo)?;
        let folder = triple.map_or_else(|| target.to_owned(), |triple| target.join(triple));
        Ok(folder.join("dist").join(PACKAGE))
    }

    /// Where each file goes on a system.
    fn files(&self, program: &Path) -> Result<Vec<Item>, Failure> {
        let told = |arguments: &[&str]| shell::output(Command::new(program).args(arguments));
        let source = |name: &str| {
            let path = self.root.join(name);
            fs::read(&path).map_err(failed(&path))
        };
        let item = |path: &str, mode, bytes| Item {
            path: path.to_owned(),
            mode,
            bytes,
        };
        let completions = |shell: &str| told(&["completions", shell]);
        Ok(vec![
            item(
                "usr/bin/inflightkv",
                0o755,
                fs::read(program).map_err(failed(program))?,
            ),
            item(
                "usr/share/man/man1/inflightkv.1.gz",
                0o644,
                gzip(told(&["man"])?)?,
            ),
            item(
                "usr/share/bash-completion/completions/inflightkv",
                0o644,
                completions("bash")?,
            ),
            item(
                "usr/share/zsh/vendor-completions/_inflightkv",
                0o644,
                completions("zsh")?,
            ),
            item(
                "usr/share/fish/vendor_completions.d/inflightkv.fish",
                0o644,
                completions("fish")?,
            ),
            item(
                "usr/lib/systemd/system/inflightkv.service",
                0o644,
                source("deploy/systemd/inflightkv.service")?,
            ),
            item(
                "etc/inflightkv/inflightkv.toml",
                0o644,
                told(&["config", "--default"])?,
            ),
            item(
                "usr/share/doc/inflightkv/README.md",
                0o644,
                source("README.md")?,
            ),
            item(
                "usr/share/doc/inflightkv/CHANGELOG.md",
                0o644,
                source("CHANGELOG.md")?,
            ),
            item(
                "usr/share/doc/inflightkv/LICENSE-MIT",
                0o644,
                source("LICENSE-MIT")?,
            ),
            item(
                "usr/share/doc/inflightkv/LICENSE-APACHE",
                0o644,
                source("LICENSE-APACHE")?,
            ),
            item(
                "usr/share/doc/inflightkv/copyright",
                0o644,
                self.copyright()?.into_bytes(),
            ),
        ])
    }

    /// Licences of this project and of every crate in the program.
    fn copyright(&self) -> Result<String, Failure> {
        let sbom: serde_json::Value = serde_json::from_str(&self.sbom()?)
            .map_err(|error| Failure(format!("the SBOM: {error}")))?;
        let mut text = "InFlightKv is licensed under MIT or Apache-2.0, at your choice; see LICENSE-MIT and LICENSE-APACHE.\n\n\
                        The program contains these crates, each under its own licence:\n\n"
            .to_owned();
        for component in sbom["components"].as_array().into_iter().flatten() {
            let field = |name: &str| component[name].as_str().unwrap_or_default();
            let licence = component["licenses"][0]["expression"]
                .as_str()
                .unwrap_or("unknown");
            text.push_str(&format!(
                "{} {}: {licence}\n",
                field("name"),
                field("version")
            ));
        }
        Ok(text)
    }

    fn sbom(&self) -> Result<String, Failure> {
        let mut cargo = shell::cargo(self.root);
        cargo.args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &host()?,
        ]);
        let json = shell::output(&mut cargo)?;
        let metadata = serde_json::from_slice(&json)
            .map_err(|error| Failure(format!("`cargo metadata`: {error}")))?;
        sbom::cyclonedx(&metadata, self.version)
    }

    /// In one folder, program first to be found.
    fn tarball(&self, files: &[Item], host: &str) -> Result<Vec<u8>, Failure> {
        let folder = format!("{PACKAGE}-{}-{host}", self.version);
        let items = files.iter().map(|item| {
            let name = item.path.rsplit('/').next().unwrap_or_default();
            let path = match item.path.as_str() {
                path if path.starts_with("usr/share/bash") => {
                    "completions/inflightkv.bash".to_owned()
                }
                path if path.starts_with("usr/share/zsh") || path.starts_with("usr/share/fish") => {
                    format!("completions/{name}")
                }
                _ => name.to_owned(),
            };
            Item {
                path: format!("{folder}/{path}"),
                ..item.clone()
            }
        });
        gzip(tar(&items.collect::<Vec<_>>(), self.epoch)?)
    }

    fn deb(&self, files: &[Item], program: &Path, architecture: &str) -> Result<Vec<u8>, Failure> {
        let bytes: usize = files.iter().map(|item| item.bytes.len()).sum();
        let glibc = glibc(&fs::read(program).map_err(failed(program))?);
        let control = format!(
            "Package: {PACKAGE}\n\
             Version: {}-1\n\
             Architecture: {}\n\
             Maintainer: The InFlightKv developers <inflightkv@localhost>\n\
             Installed-Size: {}\n\
             Depends: libc6 (>= {glibc}), libgcc-s1\n\
             Section: database\n\
             Priority: optional\n\
             Description: durable in-memory JSON key-value store with versions\n \
             Keeps JSON documents with per-key versions in memory, answers HTTP from\n \
             event loops, one per core, and with a data directory never loses an\n \
             acknowledged write.\n",
            self.version,
            debian(architecture),
            bytes.div_ceil(1024)
        );
        // Only where systemd runs; a container has the files and nothing to tell.
        let reload = "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n";
        let scripts = [
            ("postinst", format!("#!/bin/sh\nset -e\n{reload}")),
            (
                "prerm",
                "#!/bin/sh\nset -e\nif [ \"$1\" = remove ] && [ -d /run/systemd/system ]; then systemctl disable --now inflightkv.service; fi\n"
                    .to_owned(),
            ),
            ("postrm", format!("#!/bin/sh\nset -e\n{reload}")),
        ];
        let sums: String = files
            .iter()
            .map(|item| format!("{}  {}\n", md5(&item.bytes), item.path))
            .collect();
        let text = |path: &str, mode, text: String| Item {
            path: path.to_owned(),
            mode,
            bytes: text.into_bytes(),
        };
        let mut items = vec![
            text("control", 0o644, control),
            text(
                "conffiles",
                0o644,
                "/etc/inflightkv/inflightkv.toml\n".to_owned(),
            ),
            text("md5sums", 0o644, sums),
        ];
        items.extend(scripts.map(|(name, script)| text(name, 0o755, script)));
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.gz", gzip(tar(&items, self.epoch)?)?),
            ("data.tar.gz", gzip(tar(files, self.epoch)?)?),
        ];
        Ok(ar(&members, self.epoch))
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure(format!("{path}: {error}"))
}

fn host() -> Result<String, Failure> {
    shell::asked("rustc", &["--version", "--verbose"])
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        })
        .ok_or_else(|| Failure("rustc does not say for what it compiles".to_owned()))
}

fn is_auditable() -> bool {
    shell::asked("cargo-auditable", &["--version"]).is_some()
}

/// Whether both the library and a C compiler for it are there.
fn has_musl() -> bool {
    let library = shell::asked("rustc", &["--print", "target-libdir", "--target", MUSL]);
    library.is_some_and(|folder| Path::new(&folder).is_dir())
        && shell::asked("musl-gcc", &["--version"]).is_some()
}

/// What Debian calls an architecture.
fn debian(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i686" => "i386",
        other => other,
    }
}

/// The newest version of the C library that the program asks for, from its table of symbols.
fn glibc(program: &[u8]) -> String {
    const NAME: &[u8] = b"GLIBC_2.";
    let minor = program
        .windows(NAME.len() + 2)
        .filter(|bytes| bytes.starts_with(NAME))
        .filter_map(|bytes| {
            let digits = &bytes[NAME.len()..];
            let len = digits
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            str::from_utf8(&digits[..len]).ok()?.parse::<u32>().ok()
        })
        .max();
    format!("2.{}", minor.unwrap_or(17))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 1321. Nothing is protected by it; Debian's packages list it for their files.
fn md5(bytes: &[u8]) -> String {
    const TURNS: [[u32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    let mut message = bytes.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend((bytes.len() as u64).wrapping_mul(8).to_le_bytes());
    let mut sum: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in message.chunks_exact(64) {
        let word = |at: usize| {
            let bytes = block[4 * at..4 * at + 4]
                .try_into()
                .expect("four bytes are four bytes");
            u32::from_le_bytes(bytes)
        };
        let [mut a, mut b, mut c, mut d] = sum;
        for step in 0..64_usize {
            let (mixed, at) = match step / 16 {
                0 => ((b & c) | (!b & d), step),
                1 => ((d & b) | (!d & c), (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), (7 * step) % 16),
            };
            let sine = ((step as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32;
            let turned = a
                .wrapping_add(mixed)
                .wrapping_add(sine)
                .wrapping_add(word(at))
                .rotate_left(TURNS[step / 16][step % 4]);
            (a, d, c, b) = (d, c, b, b.wrapping_add(turned));
        }
        for (sum, part) in sum.iter_mut().zip([a, b, c, d]) {
            *sum = sum.wrapping_add(part);
        }
    }
    sum.iter().map(|part| hex(&part.to_le_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_document() {
        assert_eq!(md5(b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(md5(b"message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
        let long =
            b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        assert_eq!(md5(long), "57edf4a22be3c955ac49da2e2107b67a");
    }

    #[test]
    fn the_newest_symbol_counts() {
        assert_eq!(glibc(b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0"), "2.34");
        assert_eq!(glibc(b"static"), "2.17");
    }
}
