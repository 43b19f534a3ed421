//! The keys of session ids: one per app, kept on disk, so that a session id means the same after a restart.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use sundew_channel::tag::TagKey;

use crate::Home;

/// The app's key; made on first use.
///
/// # Errors
/// When it can be neither read nor made.
pub(crate) fn of(home: &Home, app: &str) -> Result<TagKey, String> {
    let path = home.keys().join(file_name(app));
    let failed = |error: std::io::Error| {
        format!("cannot keep the key of the session ids in {}: {error}", path.display())
    };
    if let Ok(bytes) = std::fs::read(&path)
        && let Ok(bytes) = bytes.try_into()
    {
        return Ok(TagKey::from_bytes(bytes));
    }
    let key = TagKey::generate().map_err(failed)?;
    let new = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(&key.to_bytes()).map_err(failed)?;
    std::fs::rename(&new, &path).map_err(failed)?;
    Ok(key)
}

/// A file name for any app name: two names never share one.
fn file_name(app: &str) -> String {
    let mut name = String::new();
    for byte in app.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("_{byte:02x}")),
        }
    }
    // A file name has a limit; what is cut off is told apart by its length only, which is as far as names go.
    name.truncate(180);
    format!("{name}.{}.key", app.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_each_app_has_its_own() {
        let folder = std::env::temp_dir().join(format!("sundew-keys-{}", std::process::id()));
        let home = Home::at(&folder).unwrap();
        home.create().unwrap();
        let first = of(&home, "a/../b").unwrap();
        assert_eq!(of(&home, "a/../b").unwrap(), first);
        assert_ne!(of(&home, "a_2f../b").unwrap(), first);
        assert_ne!(of(&home, "A").unwrap(), of(&home, "a").unwrap());
        assert_eq!(std::fs::read_dir(home.keys()).unwrap().count(), 4);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
