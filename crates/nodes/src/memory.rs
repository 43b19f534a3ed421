//! What a node remembers over restarts: who it is, and its number.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// As it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) id: String,
    pub(crate) number: Option<u8>,
}

impl Memory {
    /// What is stored there, or a new identity.
    pub(crate) fn load(path: &Path) -> std::io::Result<Self> {
        if let Some(memory) = std::fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return Ok(memory);
        }
        Ok(Self { id: random()?, number: None })
    }

    pub(crate) fn store(&self, path: &Path) -> std::io::Result<()> {
        let new = path.with_extension("new");
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        std::fs::rename(&new, path)
    }
}

/// A name nobody else has.
pub(crate) fn random() -> std::io::Result<String> {
    let mut bytes = [0u8; 12];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
