//! Reservations and slots.

use chrono::TimeDelta;
use tonic::Request;
use uuid::Uuid;

use super::consume::named;
use crate::app::usage::holds::Wish;
use crate::domain::quota::{Charge, HoldKind, HoldRow, HoldState, Scope};
use crate::error::Error;
use crate::rpc::fields::Fields;
use crate::rpc::status::reason;
use crate::rpc::{Services, convert, v1};

const TTL: &str = "must be 1 second to 24 hours";

pub(super) async fn reserve(s: &Services, request: Request<v1::ReserveRequest>) -> Result<v1::ReserveResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let amounts = f.amounts(&m.amounts, 1);
    let ttl = ttl(&mut f, m.ttl.as_ref(), TimeDelta::minutes(5));
    let key = f.idempotency_key(&m.idempotency_key);
    let who = named(&mut f, &t.ctx, &m.user_id, &m.api_key_id);
    let (Some(amounts), Some(ttl), Some(key), Some(who)) = (amounts, ttl, key, who) else { return Err(f.refuse()) };
    let wish = Wish { amounts, ttl, key, who: who?, holder: String::new() };
    let hold = s.0.app.reserve(&t.ctx, (&t.tenant, &t.catalogue), wish).await?;
    let usage = hold.usage.iter().map(convert::usage).collect();
    Ok(v1::ReserveResponse { reservation: Some(reservation(&hold.row)), usage })
}

pub(super) async fn commit_reservation(
    s: &Services,
    request: Request<v1::CommitReservationRequest>,
) -> Result<v1::CommitReservationResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let hold = hold_id(&mut f, "reservation_id", &m.reservation_id);
    let amounts = f.amounts(&m.amounts, 0);
    let (Some(hold), Some(amounts)) = (hold, amounts) else { return Err(f.refuse()) };
    let hold = s.0.app.commit_reservation(&t.ctx, (&t.tenant, &t.catalogue), hold, &amounts).await?;
    let usage = hold.usage.iter().map(convert::usage).collect();
    Ok(v1::CommitReservationResponse { reservation: Some(reservation(&hold.row)), usage })
}

pub(super) async fn release_reservation(
    s: &Services,
    request: Request<v1::ReleaseReservationRequest>,
) -> Result<v1::ReleaseReservationResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(hold) = hold_id(&mut f, "reservation_id", &m.reservation_id) else { return Err(f.refuse()) };
    let hold = (HoldKind::Reservation, hold);
    let row = s.0.app.release_hold(&t.ctx, (&t.tenant, &t.catalogue), hold).await?;
    Ok(v1::ReleaseReservationResponse { reservation: Some(reservation(&row)) })
}

pub(super) async fn extend_reservation(
    s: &Services,
    request: Request<v1::ExtendReservationRequest>,
) -> Result<v1::ExtendReservationResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let hold = hold_id(&mut f, "reservation_id", &m.reservation_id);
    let ttl = ttl(&mut f, m.ttl.as_ref(), TimeDelta::minutes(5));
    let (Some(hold), Some(ttl)) = (hold, ttl) else { return Err(f.refuse()) };
    let hold = (HoldKind::Reservation, &[hold][..]);
    let rows = s.0.app.extend_holds(&t.ctx, (&t.tenant, &t.catalogue), hold, ttl).await;
    let row = rows.into_iter().next().unwrap_or(Err(Error::HoldNotFound))?;
    Ok(v1::ExtendReservationResponse { reservation: Some(reservation(&row)) })
}

pub(super) async fn acquire_slot(
    s: &Services,
    request: Request<v1::AcquireSlotRequest>,
) -> Result<v1::AcquireSlotResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let metric =
        f.read("metric", if (1..=64).contains(&m.metric.len()) { Ok(m.metric) } else { Err("must name a metric") });
    let holder = f.text("holder", &m.holder, 128);
    let ttl = ttl(&mut f, m.ttl.as_ref(), TimeDelta::minutes(1));
    let key = f.idempotency_key(&m.idempotency_key);
    let who = named(&mut f, &t.ctx, &m.user_id, &m.api_key_id);
    let (Some(metric), Some(holder), Some(ttl), Some(key), Some(who)) = (metric, holder, ttl, key, who) else {
        return Err(f.refuse());
    };
    let wish = Wish { amounts: [(metric, 1)].into(), ttl, key, who: who?, holder };
    let hold = s.0.app.acquire_slot(&t.ctx, (&t.tenant, &t.catalogue), wish).await?;
    let usage = hold.usage.iter().map(convert::usage).collect();
    Ok(v1::AcquireSlotResponse { slot: Some(slot(&hold.row)), usage })
}

pub(super) async fn heartbeat_slots(
    s: &Services,
    request: Request<v1::HeartbeatSlotsRequest>,
) -> Result<v1::HeartbeatSlotsResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let count = if (1..=1000).contains(&m.slot_ids.len()) { Ok(()) } else { Err("must be 1 to 1,000") };
    f.read("slot_ids", count);
    let read = |(i, id): (usize, &String)| hold_id(&mut f, &format!("slot_ids[{i}]"), id);
    let ids: Option<Vec<Uuid>> = m.slot_ids.iter().take(1000).enumerate().map(read).collect();
    let (Some(ids), Some(ttl), true) = (ids, ttl(&mut f, m.ttl.as_ref(), TimeDelta::minutes(1)), f.is_clean()) else {
        return Err(f.refuse());
    };
    let slots = (HoldKind::Slot, &ids[..]);
    let rows = s.0.app.extend_holds(&t.ctx, (&t.tenant, &t.catalogue), slots, ttl).await;
    let result = |row: &Result<HoldRow, Error>| match row {
        Ok(row) => {
            v1::HeartbeatResult { expire_time: Some(convert::time(row.expires_at)), ..v1::HeartbeatResult::default() }
        }
        Err(error) => {
            v1::HeartbeatResult { expire_time: None, reason: reason(error).to_owned(), message: error.to_string() }
        }
    };
    Ok(v1::HeartbeatSlotsResponse { results: rows.iter().map(result).collect() })
}

pub(super) async fn release_slot(
    s: &Services,
    request: Request<v1::ReleaseSlotRequest>,
) -> Result<v1::ReleaseSlotResponse, Error> {
    let (t, m) = s.0.enter(request).await?;
    let mut f = Fields::default();
    let Some(hold) = hold_id(&mut f, "slot_id", &m.slot_id) else { return Err(f.refuse()) };
    let row = s.0.app.release_hold(&t.ctx, (&t.tenant, &t.catalogue), (HoldKind::Slot, hold)).await?;
    Ok(v1::ReleaseSlotResponse { slot: Some(slot(&row)) })
}

fn ttl(f: &mut Fields, duration: Option<&prost_types::Duration>, usual: TimeDelta) -> Option<TimeDelta> {
    let Some(duration) = duration else { return Some(usual) };
    f.span("ttl", duration, (TimeDelta::seconds(1), TimeDelta::days(1)), TTL)
}

fn hold_id(f: &mut Fields, field: &str, text: &str) -> Option<Uuid> {
    f.read(field, Uuid::try_parse(text).map_err(|_| "must be an id, a UUID"))
}

fn reservation(row: &HoldRow) -> v1::Reservation {
    v1::Reservation {
        reservation_id: row.hold.to_string(),
        state: state(row.state).into(),
        amounts: amounts(&row.charges),
        committed_amounts: amounts(&row.actual),
        expire_time: Some(convert::time(row.expires_at)),
        create_time: Some(convert::time(row.created_at)),
    }
}

fn slot(row: &HoldRow) -> v1::Slot {
    v1::Slot {
        slot_id: row.hold.to_string(),
        state: state(row.state).into(),
        metric: row.charges.first().map(|charge| charge.metric.to_string()).unwrap_or_default(),
        holder: row.holder.to_string(),
        expire_time: Some(convert::time(row.expires_at)),
        create_time: Some(convert::time(row.created_at)),
    }
}

/// Amounts by metric: the tenant's, since those of members and keys are the same.
fn amounts(charges: &[Charge]) -> Vec<v1::Amount> {
    let of_tenant = charges.iter().filter(|charge| charge.account.scope == Scope::Tenant);
    of_tenant.map(|charge| v1::Amount { metric: charge.metric.to_string(), amount: charge.amount }).collect()
}

const fn state(state: HoldState) -> v1::HoldState {
    match state {
        HoldState::Held => v1::HoldState::Held,
        HoldState::Committed => v1::HoldState::Committed,
        HoldState::Released => v1::HoldState::Released,
        HoldState::Expired => v1::HoldState::Expired,
    }
}
