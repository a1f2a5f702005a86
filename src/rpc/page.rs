//! Page tokens: where a list goes on, tied by a MAC to the method, tenant, caller and filter that it was given for. They
//! carry no authority: permissions are checked anew on each page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use uuid::Uuid;

use crate::app::usage::events::EventPlace;
use crate::ctx::{Ctx, TenantCtx};
use crate::domain::seal::MasterKey;
use crate::error::Error;
use crate::time::Timestamp;

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
        let id = |bytes: Vec<u8>| Uuid::from_slice(&bytes).map_err(|_| Error::PageTokenMismatch);
        let after = if token.is_empty() { Uuid::nil() } else { id(open(master, &binding, token)?)? };
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
        cut((master, &self.binding), items, self.size, |last| key(last).into_bytes().to_vec())
    }
}

/// A page of events, which are in the order of when they happened.
pub(super) struct EventPage {
    /// The last one of the page before; none on the first.
    pub(super) after: Option<EventPlace>,
    size: usize,
    binding: Vec<u8>,
}

impl EventPage {
    /// As `Page::read`, of a list of a tenant's.
    ///
    /// # Errors
    /// As `Page::read`.
    pub(super) fn read(
        master: &MasterKey,
        t: &TenantCtx,
        (size, token): (i32, &str),
        filter: &impl Message,
    ) -> Result<Self, Error> {
        let Page { size, binding, .. } = Page::read(master, &t.ctx, Some(t), (size, ""), filter)?;
        let after = if token.is_empty() { None } else { Some(place(&open(master, &binding, token)?)?) };
        Ok(Self { after, size, binding })
    }

    /// How many to read: one more than asked for.
    pub(super) fn limit(&self) -> i64 {
        i64::try_from(self.size).unwrap_or(0) + 1
    }

    /// As `Page::cut`.
    pub(super) fn cut<T>(&self, master: &MasterKey, items: &mut Vec<T>, key: impl Fn(&T) -> EventPlace) -> String {
        let bytes = |place: EventPlace| [&place.at.micros().to_be_bytes()[..], place.key.as_bytes()].concat();
        cut((master, &self.binding), items, self.size, |last| bytes(key(last)))
    }
}

fn place(bytes: &[u8]) -> Result<EventPlace, Error> {
    let (at, key) = bytes.split_first_chunk::<8>().ok_or(Error::PageTokenMismatch)?;
    let key = std::str::from_utf8(key).map_err(|_| Error::PageTokenMismatch)?.to_owned();
    Ok(EventPlace { at: Timestamp::from_micros(i64::from_be_bytes(*at)), key })
}

fn cut<T>(
    (master, binding): (&MasterKey, &[u8]),
    items: &mut Vec<T>,
    size: usize,
    key: impl Fn(&T) -> Vec<u8>,
) -> String {
    if items.len() <= size {
        return String::new();
    }
    items.truncate(size);
    items.last().map(|last| seal(master, binding, &key(last))).unwrap_or_default()
}

fn binding(ctx: &Ctx, tenant: Option<&TenantCtx>, filter: &impl Message) -> Vec<u8> {
    let tenant = tenant.map_or(Uuid::nil(), |t| t.tenant_id().0);
    // Without a tenant the list is the caller's own.
    let principal = if tenant.is_nil() { ctx.caller.principal().unwrap_or_default() } else { Uuid::nil() };
    let kind = [u8::try_from(ctx.caller.kind_number()).unwrap_or(0)];
    [ctx.method.as_bytes(), &kind, tenant.as_bytes(), principal.as_bytes(), &filter.encode_to_vec()].concat()
}

fn seal(master: &MasterKey, binding: &[u8], last: &[u8]) -> String {
    let mac = master.mac("page", &[binding, last]);
    URL_SAFE_NO_PAD.encode([&[1], last, &mac[..16]].concat())
}

fn open(master: &MasterKey, binding: &[u8], token: &str) -> Result<Vec<u8>, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::PageTokenMismatch)?;
    let last = bytes.len().checked_sub(16).and_then(|end| bytes.get(1..end)).ok_or(Error::PageTokenMismatch)?;
    if seal(master, binding, last) != token {
        return Err(Error::PageTokenMismatch);
    }
    Ok(last.to_vec())
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
        let own = ids.map(|last| seal(&master(), b"a list", last.as_bytes()));
        let others = ids.map(|last| seal(&master(), b"another list", last.as_bytes()));
        let bytes = vec(any::<u8>(), 33).prop_map(|bytes| URL_SAFE_NO_PAD.encode([&[1], &bytes[1..]].concat()));
        fuzz("page token", prop_oneof![5 => texts(&own), 2 => texts(&others), 1 => bytes], |text| {
            let opened = open(&master(), b"a list", &text).ok();
            let at = own.iter().position(|token| *token == text);
            let is_open = opened.is_some();
            prop_assert_eq!(opened, at.map(|at| ids[at].as_bytes().to_vec()));
            Ok(is_open)
        });
    }
}
