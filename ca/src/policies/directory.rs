//! The policy directory as one snapshot: every file by content, read twice alike, compiled together.
//!
//! Files are followed through links, as Kubernetes mounts them; a swap in the middle of a reading shows in the second one.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use policy::{
    PolicySet,
    strict::{Problem, Problems, Source},
};
use rustix::fs::OFlags;

/// Reads and compiles `directory`.
pub(crate) fn load(directory: &Path) -> Result<(PolicySet, Vec<Source>), Problems> {
    let sources = read(directory)?;
    compile(&sources).map(|set| (set, sources))
}

/// Compiles the files of a snapshot, with the tests and guarantees in them. No files at all are a mistake, not a set, and
/// so are key sets alone.
pub(super) fn compile(sources: &[Source]) -> Result<PolicySet, Problems> {
    if sources.iter().all(|source| source.name.ends_with(".json")) {
        let cure = "put policies into it, or remove \"policies\" from the CA's configuration".to_owned();
        let message = "holds no policy file, and such a set would refuse all traffic everywhere";
        return Err(Problems::from(Problem::in_file("the policy directory", message, Some(cure))));
    }
    policy::compile(sources)
}

/// Reads every file that belongs to a set, sorted by name.
pub(super) fn read(directory: &Path) -> Result<Vec<Source>, Problems> {
    let shown = directory.display().to_string();
    let listing = std::fs::read_dir(directory).map_err(|error| unreadable(&shown, &error))?;
    let (mut problems, mut sources) = (Problems::default(), Vec::new());
    let (mut files, mut bytes) = (0_usize, 0_usize);
    for file in listing {
        let file = file.map_err(|error| unreadable(&shown, &error))?;
        if !policy::belongs_to_set(&file.file_name().to_string_lossy()) {
            continue;
        }
        let Ok(name) = file.file_name().into_string() else {
            let shown = file.path().display().to_string();
            return Err(Problems::from(Problem::in_file(&shown, "has a name that is not UTF-8", None)));
        };
        files += 1;
        if files > policy::MAX_FILES {
            let message = format!("holds more than {} policy files", policy::MAX_FILES);
            return Err(Problems::from(Problem::in_file(&shown, message, None)));
        }
        let read = read_file(&file.path()).map_err(|error| unreadable(&name, &error));
        match read.and_then(|content| Source::from_bytes(&*name, content)) {
            Ok(source) => {
                bytes = bytes.saturating_add(source.text.len());
                sources.push(source);
            }
            Err(flaws) => problems.extend(flaws),
        }
        if bytes > policy::MAX_SET_BYTES {
            let message = format!("the policy files have more than {} bytes", policy::MAX_SET_BYTES);
            return Err(Problems::from(Problem::in_file(&shown, message, None)));
        }
    }
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // A pipe would be waited for without end, and to open some devices is to do something with them.
    plain(&std::fs::metadata(path)?)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    plain(&file.metadata()?)?;
    let mut content = Vec::new();
    // One byte more than is accepted, so that the reader of the language says so.
    file.take(policy::strict::MAX_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn plain(found: &Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"))
}

fn unreadable(name: &str, error: &io::Error) -> Problems {
    let cure = "check that it exists and that this user may read it".to_owned();
    Problems::from(Problem::in_file(name, format!("cannot be read: {error}"), Some(cure)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::{ffi::OsStrExt as _, fs::symlink};

    use super::*;

    #[test]
    fn a_directory_is_read_whole_by_name_and_through_links() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("..2026")).unwrap();
        std::fs::write(dir.path().join("..2026/web.yaml"), policy("web")).unwrap();
        symlink("..2026", dir.path().join("..data")).unwrap();
        symlink("..data/web.yaml", dir.path().join("web.yaml")).unwrap();
        std::fs::write(dir.path().join("api.yml"), policy("api")).unwrap();
        std::fs::write(dir.path().join("notes.txt"), "no policy").unwrap();
        std::fs::write(dir.path().join(".web.yaml.swp"), "no policy").unwrap();

        let (set, sources) = load(dir.path()).unwrap();

        assert_eq!(sources.iter().map(|file| &*file.name).collect::<Vec<_>>(), ["api.yml", "web.yaml"]);
        assert_eq!(set.policies().count(), 2);
    }

    #[test]
    fn each_flaw_refuses_the_whole_directory() {
        let flaws: [Flaw; 7] = [
            ("holds no policy file", |_| {}),
            ("holds no policy file", |dir| std::fs::write(dir.join("keys.json"), "{}").unwrap()),
            ("cannot be read", |dir| std::fs::create_dir(dir.join("a.yaml")).unwrap()),
            ("cannot be read", |dir| symlink("loop.yaml", dir.join("loop.yaml")).unwrap()),
            ("has a name", |dir| std::fs::write(dir.join(OsStr::from_bytes(b"\xff.yaml")), "").unwrap()),
            ("not UTF-8", |dir| std::fs::write(dir.join("a.yaml"), b"\xff").unwrap()),
            ("bytes", |dir| {
                std::fs::write(dir.join("a.yaml"), vec![b' '; policy::strict::MAX_BYTES + 1]).unwrap();
            }),
        ];
        for (wanted, make) in flaws {
            let dir = tempfile::tempdir().unwrap();
            if wanted != "holds no policy file" {
                std::fs::write(dir.path().join("good.yaml"), policy("good")).unwrap();
            }
            make(dir.path());

            let problems = load(dir.path()).err().unwrap().to_string();

            assert!(problems.contains(wanted), "{wanted}: {problems}");
        }
        assert!(load(Path::new("/nonexistent")).is_err());
    }

    type Flaw = (&'static str, fn(&Path));

    fn policy(name: &str) -> String {
        format!("vouchsafe: policy/v1\nname: {name}\nprotects: spiffe://prod.test/{name}\n")
    }
}
