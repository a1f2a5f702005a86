//! stub
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct GuardError;
pub async fn check_all(_: &mut sqlx::PgConnection, _: &mut sqlx::PgConnection) -> Result<(), GuardError> {
    Ok(())
}
