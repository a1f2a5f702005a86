//! Page tokens: where a list goes on, tied by a MAC to the method, tenant, caller and filter that it was given for. They
//! carry no authority: permissions are checked anew on each page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use uuid::Uuid;

use crate::ctx::{Ctx, TenantCtx};
use crate::domain::seal::MasterKey;
use crate::error::Error;

/// How many items a page has when nobody says.
const DEFAULT_SIZE: i32 = 50;

/// How many it has at most.
const MAX_SIZE: i32 = 1000;

/// A page that is asked for.
pub(super) struct Page {
    /// The last item of the page before; nil on the first.
    pub(super) after: Uuid,
    /// How many items.
    pub(super) size: usize,
    binding: Vec<u8>,
}

impl Page {
    /// Reads what a list's request says. `filter` is the request without page size and token.
    ///
    /// # Errors
    /// `FieldsInvalid` for a negative size, `PageTokenMismatch` for a token of another list.
    pub(super) fn read(
        master: &MasterKey,
        ctx: &Ctx,
        tenant: Option<&TenantCtx>,
        (size, token): (i32, &str),
        filter: &impl Message,
    ) -> Result<Self, Error> {
        let size = match size {
            ..0 => return Err(Error::field("page_size", "must not be negative")),
            0 => DEFAULT_SIZE,
            size => size.min(MAX_SIZE),
        };
        let binding = binding(ctx, tenant, filter);
        let after = if token.is_empty() { Uuid::nil() } else { open(master, &binding, token)? };
        Ok(Self { after, size: usize::try_from(size).unwrap_or(1), binding })
    }

    /// Where to read from, and how many: one more than asked for, to know whether there is a next page.
    pub(super) fn span(&self) -> (Uuid, i64) {
        (self.after, i64::try_from(self.size).unwrap_or(0) + 1)
    }

    /// `span` of a list whose newest items come first.
    pub(super) fn span_down(&self) -> (Uuid, i64) {
        let (after, size) = self.span();
        (if after.is_nil() { Uuid::max() } else { after }, size)
    }

    /// Cuts the extra item off; the token of the next page, empty on the last.
    pub(super) fn cut<T>(&self, master: &MasterKey, items: &mut Vec<T>, key: impl Fn(&T) -> Uuid) -> String {
        if items.len() <= self.size {
            return String::new();
        }
        items.truncate(self.size);
        items.last().map(|last| seal(master, &self.binding, key(last))).unwrap_or_default()
    }
}

fn binding(ctx: &Ctx, tenant: Option<&TenantCtx>, filter: &impl Message) -> Vec<u8> {
    let tenant = tenant.map_or(Uuid::nil(), |t| t.tenant_id().0);
    // Without a tenant the list is the caller's own.
    let principal = if tenant.is_nil() { ctx.caller.principal().unwrap_or_default() } else { Uuid::nil() };
    let kind = [u8::try_from(ctx.caller.kind_number()).unwrap_or(0)];
    [ctx.method.as_bytes(), &kind, tenant.as_bytes(), principal.as_bytes(), &filter.encode_to_vec()].concat()
}

fn seal(master: &MasterKey, binding: &[u8], last: Uuid) -> String {
    let mac = master.mac("page", &[binding, last.as_bytes()]);
    URL_SAFE_NO_PAD.encode([&[1], &last.as_bytes()[..], &mac[..16]].concat())
}

fn open(master: &MasterKey, binding: &[u8], token: &str) -> Result<Uuid, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::PageTokenMismatch)?;
    let bytes: [u8; 33] = bytes.try_into().map_err(|_| Error::PageTokenMismatch)?;
    let (Some(last), [1, ..]) = (bytes[1..17].first_chunk::<16>(), bytes) else { return Err(Error::PageTokenMismatch) };
    let last = Uuid::from_bytes(*last);
    if seal(master, binding, last) != token {
        return Err(Error::PageTokenMismatch);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::fuzz::{fuzz, master, texts};

    #[test]
    fn a_fuzzed_page_token_opens_only_whole_and_in_its_own_list() {
        let ids = [Uuid::nil(), Uuid::max(), Uuid::from_u128(7)];
        let own = ids.map(|last| seal(&master(), b"a list", last));
        let others = ids.map(|last| seal(&master(), b"another list", last));
        let bytes = vec(any::<u8>(), 33).prop_map(|bytes| URL_SAFE_NO_PAD.encode([&[1], &bytes[1..]].concat()));
        fuzz("page token", prop_oneof![5 => texts(&own), 2 => texts(&others), 1 => bytes], |text| {
            let opened = open(&master(), b"a list", &text).ok();
            let at = own.iter().position(|token| *token == text);
            prop_assert_eq!(opened, at.map(|at| ids[at]));
            Ok(opened.is_some())
        });
    }
}
