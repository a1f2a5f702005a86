//! Mail into files, for a server without a mail server: one file a letter, as it would have been sent. Links in them open
//! what they are for, so they are the owner's alone to read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lettre::message::Mailbox;
use tokio::io::AsyncWriteExt as _;

use super::smtp::{compose, sender};
use super::{Letter, MailError, Mailer, Posted};

/// Writes letters into a directory.
pub struct MailFiles {
    directory: PathBuf,
    from: Mailbox,
}

impl MailFiles {
    /// Writes into this directory, which is made when there is something to write.
    ///
    /// # Errors
    /// What cannot be used.
    pub fn new(directory: &Path, from: &str) -> Result<Self, String> {
        Ok(Self { directory: directory.to_owned(), from: sender(from)? })
    }

    async fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).await?;
        let (draft, path) = (self.directory.join(format!("{name}.part")), self.directory.join(format!("{name}.eml")));
        let mut file =
            tokio::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).await?;
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).await?;
        file.write_all(bytes).await?;
        file.sync_all().await?;
        drop(file);
        // Whoever watches the directory sees whole letters only.
        tokio::fs::rename(draft, path).await
    }
}

impl Mailer for MailFiles {
    fn send<'a>(&'a self, letter: &'a Letter) -> Posted<'a> {
        Box::pin(async move {
            let message = compose(letter, &self.from)?;
            // In the order in which they were written.
            let name = format!("{:020}-{}", letter.at.micros(), letter.id);
            let written = self.write(&name, &message.formatted()).await;
            written.map_err(|e| MailError {
                permanent: false,
                problem: format!("the letter cannot be written into {}: {e}", self.directory.display()),
            })
        })
    }
}
