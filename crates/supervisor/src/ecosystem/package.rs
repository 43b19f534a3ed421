//! A `package.json`: where it is, its scripts, and the file that node runs for a path. What a script's line means is not
//! known here.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::diagnostic::Diagnostic;
use super::keys;
use super::script::Places;

/// The longest `package.json`, in bytes.
const MAX_PACKAGE: u64 = 1 << 20;

/// What was found, or what to say.
pub(super) type Outcome<T> = Result<T, Box<Diagnostic>>;

/// A package.
pub(super) struct Package {
    pub(super) file: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) content: Value,
}

impl Package {
    /// The package of an app: the one in its working folder, or in its file's, or around the working folder.
    pub(super) fn near(places: &Places<'_>, tool: &str) -> Outcome<Self> {
        let around = places.cwd.ancestors().skip(1);
        let folders = std::iter::once(places.cwd).chain(places.folder).chain(around);
        let files = folders.map(|folder| folder.join("package.json"));
        match files.into_iter().find(|file| file.is_file()) {
            Some(file) => Self::read(&file),
            None => {
                let message = format!("there is no package.json for {tool}");
                let looked = format!("looked in {} and the folders above it", places.cwd.display());
                Err(Box::new(
                    Diagnostic::new(message).note(looked).hint("name the package's folder in `cwd`"),
                ))
            }
        }
    }

    /// Reads one.
    pub(super) fn read(file: &Path) -> Outcome<Self> {
        let wrong = |what: String| Box::new(Diagnostic::new(what));
        let size =
            file.metadata().map_err(|error| wrong(format!("cannot read {}: {error}", file.display())))?;
        if size.len() > MAX_PACKAGE {
            return Err(wrong(format!("{} is longer than {MAX_PACKAGE} bytes", file.display())));
        }
        let text =
            std::fs::read(file).map_err(|error| wrong(format!("cannot read {}: {error}", file.display())))?;
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
        let content = serde_json::from_slice(text)
            .map_err(|error| wrong(format!("{} is not valid JSON: {error}", file.display())))?;
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { file: file.to_owned(), folder, content })
    }

    /// The line of a script.
    pub(super) fn line(&self, name: &str) -> Option<&str> {
        self.content.get("scripts")?.get(name)?.as_str()
    }

    /// The line of a script that is asked for.
    pub(super) fn script(&self, tool: &str, name: &str) -> Outcome<String> {
        if let Some(line) = self.line(name) {
            return Ok(line.to_owned());
        }
        // What npm does with a package that has a server and no scripts.
        if name == "start" && tool == "npm" && self.folder.join("server.js").is_file() {
            return Ok("node server.js".to_owned());
        }
        let scripts = self.content.get("scripts").and_then(Value::as_object);
        let names: Vec<&str> = scripts.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let diagnostic = Diagnostic::new(format!("there is no script `{name}` in {}", self.file.display()));
        Err(Box::new(match (keys::nearest(name, names.iter().copied()), names.is_empty()) {
            (Some(near), _) => diagnostic.hint(format!("did you mean `{near}`?")),
            (None, true) => diagnostic.note("there are none in it"),
            (None, false) => diagnostic.note(format!("there are {}", names.join(", "))),
        }))
    }
}

/// The file that node runs for a path: the file itself, with `.js`, or what a folder's package or index is.
pub(super) fn entry(path: &Path) -> Option<PathBuf> {
    let file = |path: &Path| {
        let with = |extension: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(extension);
            PathBuf::from(name)
        };
        [path.to_owned(), with(".js"), with(".json"), with(".node")].into_iter().find(|path| path.is_file())
    };
    let index = |folder: &Path| file(&folder.join("index"));
    if let Some(found) = file(path) {
        return Some(found);
    }
    let package = Package::read(&path.join("package.json")).ok();
    let main = package.and_then(|package| Some(path.join(package.content.get("main")?.as_str()?)));
    let main = main.and_then(|main| file(&main).or_else(|| index(&main)));
    main.or_else(|| index(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_node_runs_for_a_path() {
        let dir = std::env::temp_dir().join(format!("sundew-entry-{}", std::process::id()));
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a.js", "");
        write("b", "");
        write("b.js", "");
        write("index.js", "");
        write("lib/package.json", r#"{ "main": "./src" }"#);
        write("lib/src/index.js", "");
        write("odd/package.json", r#"{ "main": "gone" }"#);
        write("odd/index.js", "");
        std::fs::create_dir_all(dir.join("empty")).unwrap();
        for (path, file) in [
            ("a", Some("a.js")),
            ("a.js", Some("a.js")),
            ("b", Some("b")),
            ("", Some("index.js")),
            ("lib", Some("lib/src/index.js")),
            ("odd", Some("odd/index.js")),
            ("empty", None),
            ("gone", None),
        ] {
            assert_eq!(entry(&dir.join(path)), file.map(|file| dir.join(file)), "{path}");
        }
        let _ = std::fs::remove_dir_all(&dir);
    }
}
