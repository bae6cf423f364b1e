//! Policy files from disk as a sidecar reads them: bounded, plain files only, all of one moment, with every flaw reported.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use policy::strict::{MAX_BYTES, Problem, Problems, Source};
use policy::{MAX_FILES, MAX_SET_BYTES, Options, PolicySet, belongs_to_set};
use rustix::fs::OFlags;

/// Files and the set that they make.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) sources: Vec<Source>,
    pub(super) set: PolicySet,
}

/// Reads and compiles.
pub(super) fn compile(paths: &[PathBuf], options: &Options) -> Result<Compiled, Problems> {
    let sources = sources(paths)?;
    let set = policy::compile_with(&sources, options)?;
    Ok(Compiled { sources, set })
}

/// Reads and compiles, for commands beside those of `policy`.
pub(crate) fn compiled(paths: &[PathBuf], options: &Options) -> Result<(Vec<Source>, PolicySet), Problems> {
    compile(paths, options).map(|Compiled { sources, set }| (sources, set))
}

/// Reads the files that are named, and those in named directories that belong to a set, until two readings agree: half of
/// a change is nobody's policy. Every flaw is reported.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, Problems> {
    let mut last = sources_once(paths);
    for _ in 1..READINGS {
        let next = sources_once(paths);
        if same(&last, &next) {
            return next;
        }
        last = next;
        std::thread::sleep(PAUSE);
    }
    let name = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
    Err(Problem::in_file(&name, "changes all the time", None).into())
}

fn same(one: &Result<Vec<Source>, Problems>, other: &Result<Vec<Source>, Problems>) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => {
            let equal = |(one, other): (&Source, &Source)| one.name == other.name && one.text == other.text;
            one.len() == other.len() && one.iter().zip(other).all(equal)
        }
        (Err(one), Err(other)) => one.to_string() == other.to_string(),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

fn sources_once(paths: &[PathBuf]) -> Result<Vec<Source>, Problems> {
    let mut problems = Problems::default();
    let mut sources = Vec::new();
    let mut bytes = 0_usize;
    for path in files(paths)? {
        match source(&path) {
            Ok(source) => {
                bytes = bytes.saturating_add(source.text.len());
                sources.push(source);
            }
            Err(flaws) => problems.extend(flaws),
        }
        if bytes > MAX_SET_BYTES {
            let message = format!("the files have more than {MAX_SET_BYTES} bytes together");
            return Err(Problem::in_file(&path.display().to_string(), message, None).into());
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

/// Reads one file under the name it was given by.
pub(super) fn source(path: &Path) -> Result<Source, Problems> {
    let bytes = read(path).map_err(|cause| unreadable(path, &cause))?;
    Source::from_bytes(path.display().to_string(), bytes)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // To open some devices is to do something with them.
    plain(&std::fs::metadata(path)?)?;
    let file = open(path)?;
    let mut bytes = Vec::new();
    // One byte more than is accepted, so that the reader of the language refuses it by its name.
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens a file without waiting for whoever may be at the other end, and looks again at what it is.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    plain(&file.metadata()?)?;
    Ok(file)
}

/// A pipe or a device would be waited for, or read, without end.
fn plain(found: &std::fs::Metadata) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"))
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Problems> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let mut files = in_directory(path)?;
        // Key sets alone are no policies.
        if files.iter().all(|file| file.extension().is_some_and(|kind| kind == "json")) {
            let cure = "such a directory grants nothing: add *.yaml files, or name another".to_owned();
            return Err(
                Problem::in_file(&path.display().to_string(), "holds no YAML file", Some(cure)).into()
            );
        }
        files.sort();
        all.append(&mut files);
        if all.len() > MAX_FILES {
            return Err(too_many(path));
        }
    }
    Ok(all)
}

fn in_directory(directory: &Path) -> Result<Vec<PathBuf>, Problems> {
    let failed = |cause: io::Error| unreadable(directory, &cause);
    let mut files = Vec::new();
    for (seen, entry) in std::fs::read_dir(directory).map_err(failed)?.enumerate() {
        let entry = entry.map_err(failed)?;
        let (path, name) = (entry.path(), entry.file_name());
        if seen >= MAX_ENTRIES || files.len() > MAX_FILES {
            return Err(too_many(directory));
        }
        if !belongs_to_set(&name.to_string_lossy()) {
            continue;
        }
        if name.to_str().is_none() {
            return Err(
                Problem::in_file(&path.display().to_string(), "has a name that is not UTF-8", None).into()
            );
        }
        files.push(path);
    }
    Ok(files)
}

fn too_many(path: &Path) -> Problems {
    let message = format!("there are more than {MAX_FILES} files or {MAX_ENTRIES} entries");
    Problem::in_file(&path.display().to_string(), message, None).into()
}

fn unreadable(path: &Path, cause: &io::Error) -> Problems {
    Problem::in_file(&path.display().to_string(), format!("cannot be read: {cause}"), None).into()
}

/// Readings of files that change under them.
const READINGS: usize = 6;
const PAUSE: Duration = Duration::from_millis(5);
/// Entries of one directory, whatever they are.
const MAX_ENTRIES: usize = 50_000;

/// The generation that a sidecar with this directory shows; `None` where it is not one directory.
pub(crate) fn generation(sources: &[Source], paths: &[PathBuf]) -> Option<String> {
    let [path] = paths else { return None };
    if !path.is_dir() {
        return None;
    }
    // A sidecar knows its files by their names in the directory, users by a path that they can open.
    let sources = sources.iter().map(|source| {
        let name = Path::new(&source.name).file_name()?.to_str()?.to_owned();
        Some(Source { name, text: source.text.clone() })
    });
    let options = Options { checks: policy::Checks::Proved, ..Options::default() };
    let set = policy::compile_with(&sources.collect::<Option<Vec<_>>>()?, &options).ok()?;
    Some(set.generation().to_owned())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::RecvTimeoutError;

    use super::*;

    #[test]
    fn a_directory_is_read_by_name_and_hidden_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", ".c.yaml", "d.txt", "keys.json"] {
            fs::write(dir.path().join(name), "x: y\n").unwrap();
        }

        let sources = sources(&[dir.path().to_owned()]).unwrap();

        let names: Vec<_> = sources
            .iter()
            .map(|source| Path::new(&source.name).file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.yml", "b.yaml", "keys.json"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_name_and_all_of_it_at_once() {
        let dir = tempfile::tempdir().unwrap();
        symlink("circle.yaml", dir.path().join("circle.yaml")).unwrap();
        symlink("nowhere", dir.path().join("gone.yaml")).unwrap();
        fs::create_dir(dir.path().join("inner.yaml")).unwrap();
        fs::write(dir.path().join("latin.yaml"), b"name: \xe9\n").unwrap();

        let problems = sources(&[dir.path().to_owned()]).unwrap_err();

        let text = problems.to_string();
        for told in [
            "circle.yaml: cannot be read",
            "gone.yaml: cannot be read",
            "inner.yaml: cannot be read: not a plain file",
            "latin.yaml:1:7",
        ] {
            assert!(text.contains(told), "{told} in {text}");
        }
        assert_eq!(problems.count(), 4);
    }

    #[test]
    fn a_pipe_and_a_huge_file_are_refused_without_reading_them() {
        let dir = tempfile::tempdir().unwrap();
        let huge = dir.path().join("huge.yaml");
        File::create(&huge).unwrap().set_len(1 << 40).unwrap();

        let problems = sources(&[huge, PathBuf::from("/dev/zero")]).unwrap_err().to_string();

        assert!(problems.contains("more than the 4194304 accepted"), "{problems}");
        assert!(problems.contains("/dev/zero: cannot be read: not a plain file"), "{problems}");
    }

    #[test]
    fn a_directory_without_policies_is_refused() {
        let dir = tempfile::tempdir().unwrap();

        for _ in 0..2 {
            let problems = sources(&[dir.path().to_owned()]).unwrap_err().to_string();

            assert!(problems.contains("holds no YAML file"), "{problems}");
            fs::write(dir.path().join("keys.json"), "{\"keys\": []}").unwrap();
        }
    }

    #[test]
    fn a_name_that_is_no_text_is_refused_where_the_file_is_meant_to_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &[u8]| fs::write(dir.path().join(OsStr::from_bytes(name)), "x: y\n").unwrap();
        put(b"a.yaml");
        put(b"\xff.txt");
        assert!(sources(&[dir.path().to_owned()]).is_ok());

        put(b"\xff.yaml");

        let problems = sources(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(problems.contains("not UTF-8"), "{problems}");
    }

    #[test]
    fn a_set_has_files_to_its_limit_and_not_beyond() {
        let dir = tempfile::tempdir().unwrap();
        (0..MAX_FILES).for_each(|number| {
            File::create(dir.path().join(format!("{number}.yaml"))).unwrap();
        });
        assert_eq!(sources(&[dir.path().to_owned()]).unwrap().len(), MAX_FILES);

        File::create(dir.path().join("more.yaml")).unwrap();

        let problems = sources(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(problems.contains("more than"), "{problems}");
    }

    #[test]
    fn files_of_two_moments_are_never_read_together() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        for version in ["one", "two"] {
            fs::create_dir(path.join(format!("..{version}"))).unwrap();
            (0..20).for_each(|number| {
                fs::write(path.join(format!("..{version}/{number}.yaml")), version).unwrap();
            });
        }
        symlink("..one", path.join("..data")).unwrap();
        (0..20).for_each(|number| {
            symlink(format!("..data/{number}.yaml"), path.join(format!("{number}.yaml"))).unwrap();
        });
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let swapped = path.clone();
        let swapping = std::thread::spawn(move || {
            let mut versions = ["..two", "..one"].into_iter().cycle();
            while stopped
                .recv_timeout(Duration::from_millis(7))
                .is_err_and(|error| error == RecvTimeoutError::Timeout)
            {
                symlink(versions.next().unwrap(), swapped.join("..tmp")).unwrap();
                fs::rename(swapped.join("..tmp"), swapped.join("..data")).unwrap();
            }
        });

        let mut whole = 0;
        for _ in 0..100 {
            // What never comes to rest is refused, which is right as well.
            let Ok(read) = sources(std::slice::from_ref(&path)) else { continue };
            assert_eq!(read.len(), 20);
            assert!(read.iter().all(|source| source.text == read[0].text), "a mixture");
            whole += 1;
        }

        drop(stop);
        swapping.join().unwrap();
        assert!(whole > 0);
    }
}
