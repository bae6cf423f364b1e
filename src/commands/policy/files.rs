//! Policy files from disk: bounded, plain files only, with every flaw reported.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use policy::strict::{MAX_BYTES, Problem, Problems, Source};
use policy::{MAX_FILES, MAX_SET_BYTES, Options, PolicySet, belongs_to_set};

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

/// Reads the files that are named, and those in named directories that belong to a set. Every flaw is reported.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<Source>, Problems> {
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
    // A pipe would be waited for without end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
    }
    let mut bytes = Vec::new();
    // One byte more than is accepted, so that the reader of the language refuses it by its name.
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Problems> {
    let mut all = Vec::new();
    for path in paths {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let mut files = in_directory(path).map_err(|cause| unreadable(path, &cause))?;
        if files.is_empty() {
            let cure = "such a directory grants nothing: add *.yaml files, or name another".to_owned();
            return Err(
                Problem::in_file(&path.display().to_string(), "holds no YAML file", Some(cure)).into()
            );
        }
        files.sort();
        all.append(&mut files);
        if all.len() > MAX_FILES {
            let message = format!("there are more than {MAX_FILES} files");
            return Err(Problem::in_file(&path.display().to_string(), message, None).into());
        }
    }
    Ok(all)
}

fn in_directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.file_name().and_then(|name| name.to_str()).is_some_and(belongs_to_set) {
            files.push(file);
        }
    }
    Ok(files)
}

fn unreadable(path: &Path, cause: &io::Error) -> Problems {
    Problem::in_file(&path.display().to_string(), format!("cannot be read: {cause}"), None).into()
}

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
    use std::fs;
    use std::os::unix::fs::symlink;

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

        let problems = sources(&[dir.path().to_owned()]).unwrap_err().to_string();

        assert!(problems.contains("holds no YAML file"), "{problems}");
    }
}
