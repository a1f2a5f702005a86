//! `tenantry completions`: what a shell needs to complete command lines.

use std::io::Write;

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Cli, CliError};

/// Flags of `tenantry completions`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tenantry completions bash > ~/.local/share/bash-completion/completions/tenantry
  tenantry completions zsh > ~/.zfunc/_tenantry       with ~/.zfunc in fpath
  tenantry completions fish > ~/.config/fish/completions/tenantry.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Writes the script to `out`.
    pub(super) fn run(&self, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
        // At once, and not as it comes: the generator panics when a pipe is closed.
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "tenantry", &mut script);
        Ok(out.write_all(&script)?)
    }
}
