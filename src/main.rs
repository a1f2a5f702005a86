//! Starts the command line; everything else is in the library.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A call allocates a hundred small things and frees them on another thread. With glibc's allocator a decision takes half as
/// much CPU again and an account four times the memory (`cargo bench --bench quota`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    tenantry::cli::run().await
}
