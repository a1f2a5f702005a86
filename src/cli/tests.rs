//! The command line by itself. What it does against a server is in the suite.

use super::*;

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
    let usage =
        Cli::try_parse_from(["tenantry", "tenant", "suspend", "acme"]).map(drop).map_err(CliError::from).unwrap_err();
    assert_eq!(usage.exit_code(), ExitCode::from(2));
}
