//! Passwords: changed by those whose they are.

use tonic::Request;

use super::accounts::person;
use crate::domain::password;
use crate::domain::secret::Secret;
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::{Services, v1};

pub(super) async fn change_password(
    s: &Services,
    request: Request<v1::ChangePasswordRequest>,
) -> Result<v1::ChangePasswordResponse, Error> {
    let (ctx, _, _, mut m) = s.0.open(request).await?;
    let person = person(&ctx)?;
    let (old, new) = (std::mem::take(&mut m.old_password), std::mem::take(&mut m.new_password));
    let mut f = Fields::default();
    let key = f.request_key(&m.request_id, &m, &s.0.app.master);
    f.typed_password("old_password", &old);
    let context = [person.user.email.as_str(), &person.user.display_name];
    let good = password::check(&new, &context);
    let other = if new == old { Err("is the password of now; choose another") } else { good };
    f.read("new_password", other);
    let (Some(key), true) = (key, f.is_clean()) else { return Err(f.refuse()) };
    let old = (!old.is_empty()).then(|| Secret::new(old));
    s.0.app.change_password(&ctx, person, (old, Secret::new(new)), key).await?;
    Ok(v1::ChangePasswordResponse {})
}
