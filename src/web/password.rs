//! The database user's password, from its file.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::StartError;

/// A password that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// The bytes that are sent to the server (hashed, by SCRAM).
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(…)")
    }
}

/// Where the password is kept. It is read at the start, and again when the server refuses what was read, so that a
/// changed password needs no restart.
#[derive(Debug, Clone)]
pub struct PasswordFile(PathBuf);

impl PasswordFile {
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Reads the file and takes one trailing newline away, which editors and `echo` add.
    ///
    /// # Errors
    /// The file cannot be read, or holds nothing.
    pub fn read(&self) -> Result<Password, StartError> {
        let mut bytes = std::fs::read(&self.0).map_err(|source| StartError::PasswordFileUnreadable { path: self.0.clone(), source })?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(StartError::PasswordFileEmpty { path: self.0.clone() });
        }
        Ok(Password(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<Password, StartError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database_password");
        std::fs::write(&path, content).unwrap();
        PasswordFile::at(&path).read()
    }

    #[test]
    fn one_trailing_newline_is_not_part_of_the_password() {
        assert_eq!(read("hush\n").unwrap().expose(), b"hush");
        assert_eq!(read("hush").unwrap().expose(), b"hush");
        assert_eq!(read("hush \n\n").unwrap().expose(), b"hush \n");
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(matches!(read("\n"), Err(StartError::PasswordFileEmpty { .. })));
        assert!(matches!(PasswordFile::at(Path::new("/nowhere")).read(), Err(StartError::PasswordFileUnreadable { .. })));
    }

    #[test]
    fn a_password_does_not_show_itself() {
        assert_eq!(format!("{:?}", read("hush").unwrap()), "Password(…)");
    }
}
