//! Reading a request's fields: everything that is wrong is found before the refusal, so that a caller mends it all at
//! once.
#![expect(clippy::option_option, reason = "whether a field could be read, and then whether it was there")]

use std::fmt::Display;

use chrono::TimeDelta;
use prost::Message;
use prost_types::Duration;
use uuid::Uuid;

use super::v1;
use crate::app::mutation::RequestKey;
use crate::app::usage::{Amounts, OWN_KEYS};
use crate::domain::catalogue::{MAX_AMOUNT, is_name};
use crate::domain::cursor::Cursor;
use crate::domain::id::UserId;
use crate::domain::plan::Cycle;
use crate::domain::role::{Role, RoleName, RoleNames, Roles};
use crate::domain::seal::MasterKey;
use crate::error::{Error, Violation};
use crate::time::Timestamp;

const ROLE_NAME: &str = "must be 1 to 64 of a-z, 0-9 and _, beginning with a letter";

/// What is wrong so far.
#[derive(Default)]
pub(super) struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// Takes a field's value, or notes what is wrong with it. Its name is written out only then.
    pub(super) fn read<T>(
        &mut self,
        field: &(impl Display + ?Sized),
        value: Result<T, impl Into<String>>,
    ) -> Option<T> {
        match value {
            Ok(value) => Some(value),
            Err(problem) => {
                self.violations.push(Violation { field: field.to_string(), description: problem.into() });
                None
            }
        }
    }

    /// A `request_id` with the body that it stands for: `body` is the request without its secrets. Empty asks for no
    /// protection.
    pub(super) fn request_key(
        &mut self,
        id: &str,
        body: &impl Message,
        master: &MasterKey,
    ) -> Option<Option<RequestKey>> {
        if id.is_empty() {
            return Some(None);
        }
        let parsed = Uuid::try_parse(id).ok().filter(|uuid| id.len() == 36 && uuid.get_version_num() == 4);
        let request_id = self.read("request_id", parsed.ok_or("must be a UUID of version 4, written with hyphens"))?;
        let body_mac = master.mac("body", &[&body.encode_to_vec()]);
        Some(Some(RequestKey { request_id, body_mac }))
    }

    /// A user's id.
    pub(super) fn user_id(&mut self, field: &str, text: &str) -> Option<UserId> {
        self.read(field, Uuid::try_parse(text).map(UserId).map_err(|_| "must be a user's id, a UUID"))
    }

    /// Roles by their names, 1 to 10; the fallback when there are none, where there is one.
    pub(super) fn roles(
        &mut self,
        field: &str,
        names: &[String],
        roles: &Roles,
        fallback: Option<&Role>,
    ) -> Option<RoleNames> {
        match fallback {
            Some(role) if names.is_empty() => Some(RoleNames::one(role.name.clone())),
            _ => self.read(field, roles.parse_all(names)),
        }
    }

    /// The name of a role that there may be.
    pub(super) fn role_name(&mut self, field: &str, name: &str) -> Option<RoleName> {
        let ok = is_name(name);
        self.read(field, if ok { Ok(RoleName::new(name)) } else { Err(ROLE_NAME) })
    }

    /// A text for people, which may be empty: at most so many characters, trimmed, without control characters.
    pub(super) fn text(&mut self, field: &(impl Display + ?Sized), text: &str, longest: usize) -> Option<String> {
        let text = text.trim();
        let fits = text.chars().count() <= longest && !text.chars().any(char::is_control);
        let problem = || format!("must be at most {longest} characters, without control characters");
        self.read(field, if fits { Ok(text.to_owned()) } else { Err(problem()) })
    }

    /// How long a period is; none when it is not said.
    pub(super) fn cycle(&mut self, field: &str, number: i32) -> Option<Option<Cycle>> {
        let cycle = match v1::BillingCycle::try_from(number) {
            Ok(v1::BillingCycle::Unspecified) => Ok(None),
            Ok(v1::BillingCycle::Month) => Ok(Some(Cycle::Month)),
            Ok(v1::BillingCycle::Year) => Ok(Some(Cycle::Year)),
            Err(_) => Err("must be one of the cycles that there are"),
        };
        self.read(field, cycle)
    }

    /// Whether a change waits for the end of the period.
    pub(super) fn when(&mut self, field: &str, number: i32) -> Option<bool> {
        let when = v1::EffectiveWhen::try_from(number).map_err(|_| "must be now or the end of the period");
        self.read(field, when).map(|when| when == v1::EffectiveWhen::PeriodEnd)
    }

    /// An instant within a span; none when absent.
    pub(super) fn time(
        &mut self,
        field: &str,
        time: Option<&prost_types::Timestamp>,
        (first, last): (Timestamp, Timestamp),
    ) -> Option<Option<Timestamp>> {
        let Some(time) = time else { return Some(None) };
        let micros = time.seconds.checked_mul(1_000_000).and_then(|s| s.checked_add(i64::from(time.nanos) / 1000));
        let at = micros.map(Timestamp::from_micros).filter(|at| first <= *at && *at <= last);
        let sound = at.filter(|_| (0..1_000_000_000).contains(&time.nanos));
        self.read(field, sound.ok_or_else(|| format!("must lie between {first} and {last}"))).map(Some)
    }

    /// How long a trial is, up to a year; zero is none at all, and absent is as the plan says.
    pub(super) fn trial(&mut self, field: &str, duration: Option<&Duration>) -> Option<Option<TimeDelta>> {
        let Some(duration) = duration else { return Some(None) };
        self.span(field, duration, (TimeDelta::zero(), TimeDelta::days(365)), "must be 0 to 365 days").map(Some)
    }

    /// The id that another system knows something by: 1 to 128 printable ASCII characters; none when empty.
    pub(super) fn external_id(&mut self, field: &str, text: &str) -> Option<Option<String>> {
        if text.is_empty() {
            return Some(None);
        }
        let ok = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        self.read(field, if ok { Ok(()) } else { Err("must be 1 to 128 printable ASCII characters") })?;
        Some(Some(text.to_owned()))
    }

    /// A plan's name; empty is none.
    pub(super) fn plan(&mut self, field: &str, name: &str) -> Option<()> {
        let ok = name.is_empty() || is_name(name);
        self.read(field, if ok { Ok(()) } else { Err("must be a plan's name") })
    }

    /// Amounts: `least` to 20 metrics, each once, each 1 to 2^53.
    pub(super) fn amounts(&mut self, list: &[v1::Amount], least: usize) -> Option<Amounts> {
        let before = self.violations.len();
        let count = if (least..=20).contains(&list.len()) {
            Ok(())
        } else {
            Err(if least == 0 { "must be at most 20 metrics" } else { "must be 1 to 20 metrics" })
        };
        self.read("amounts", count)?;
        let mut amounts = Amounts::new();
        for (i, item) in list.iter().enumerate() {
            let name = if (1..=64).contains(&item.metric.len()) { Ok(()) } else { Err("must name a metric") };
            self.read(&format_args!("amounts[{i}].metric"), name);
            let size = if (1..=MAX_AMOUNT).contains(&item.amount) { Ok(()) } else { Err("must be 1 to 2^53") };
            self.read(&format_args!("amounts[{i}].amount"), size);
            let once = amounts.insert(item.metric.clone(), item.amount).map_or(Ok(()), |_| Err("must name each once"));
            self.read(&format_args!("amounts[{i}].metric"), once);
        }
        (self.violations.len() == before).then_some(amounts)
    }

    /// The name of a metric that there may be.
    pub(super) fn metric(&mut self, field: &str, name: &str) -> Option<()> {
        self.read(field, if is_name(name) { Ok(()) } else { Err("must name a metric") })
    }

    /// Names of metrics, at most 100; none stands for all.
    pub(super) fn metrics(&mut self, names: &[String]) -> Option<()> {
        let sound = names.len() <= 100 && names.iter().all(|name| is_name(name));
        self.read("metrics", if sound { Ok(()) } else { Err("must be at most 100 names of metrics") })
    }

    /// An idempotency key: 1 to 128 printable ASCII characters; none when empty.
    pub(super) fn idempotency_key(&mut self, text: &str) -> Option<Option<String>> {
        if text.is_empty() {
            return Some(None);
        }
        let ok = text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        self.read("idempotency_key", if ok { Ok(()) } else { Err("must be 1 to 128 printable ASCII characters") })?;
        let own = if text.starts_with(OWN_KEYS) {
            Err("must not begin with `tenantry:`, as the server's own do")
        } else {
            Ok(())
        };
        self.read("idempotency_key", own)?;
        Some(Some(text.to_owned()))
    }

    /// A place in the change feed as it was told before; none when empty.
    #[expect(clippy::option_option, reason = "whether it could be read, and then whether it was there")]
    pub(super) fn cursor(&mut self, field: &str, text: &str, problem: &'static str) -> Option<Option<Cursor>> {
        if text.is_empty() {
            return Some(None);
        }
        self.read(field, Cursor::parse(text).ok_or(problem)).map(Some)
    }

    /// A span of time that lies ahead; none when absent.
    pub(super) fn ttl(&mut self, field: &str, duration: Option<&Duration>) -> Option<Option<TimeDelta>> {
        let Some(duration) = duration else { return Some(None) };
        let bounds = (TimeDelta::seconds(1), TimeDelta::days(3660));
        self.span(field, duration, bounds, "must be one second to ten years").map(Some)
    }

    /// A span of time within bounds; `wanted` says which, as the end of a sentence.
    pub(super) fn span(
        &mut self,
        field: &(impl Display + ?Sized),
        duration: &Duration,
        (least, most): (TimeDelta, TimeDelta),
        wanted: &str,
    ) -> Option<TimeDelta> {
        let nanos = u32::try_from(duration.nanos).ok();
        let span = nanos.and_then(|nanos| TimeDelta::new(duration.seconds, nanos));
        self.read(field, span.filter(|span| (least..=most).contains(span)).ok_or(wanted))
    }

    /// A password that is compared, not chosen: only what is far too long is told.
    pub(super) fn typed_password(&mut self, field: &str, text: &str) -> Option<()> {
        self.read(field, if text.chars().count() <= 128 { Ok(()) } else { Err("is longer than any password") })
    }

    /// What tells a device that was used before; only what is far too long is told.
    pub(super) fn device_token(&mut self, text: &str) -> Option<()> {
        self.read("device_token", if text.len() <= 64 { Ok(()) } else { Err("is no device token") })
    }

    /// Whether nothing is wrong.
    pub(super) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// The refusal of a request that did not read. It travels in headers, of which clients take 16 KiB: the first twenty
    /// violations fit, and give a caller enough to do.
    pub(super) fn refuse(mut self) -> Error {
        self.violations.truncate(20);
        Error::FieldsInvalid(self.violations)
    }
}
