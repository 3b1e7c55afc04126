//! The change feed: objects as they are, then each change as it is recorded.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{Stream, StreamExt, stream};
use model::{KindName, ObjectKey, Tenant};
use proto::v1;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::{
    Admin,
    objects::{Statuses, shown},
};
use crate::{callers::Caller, permits::Verb};

/// First every object, then a message without one, then each change. It ends when
/// the caller may not read any more, or when this controller stops reading the log.
pub(super) fn changes(
    admin: Admin,
    caller: Caller,
    kinds: Vec<KindName>,
) -> impl Stream<Item = Result<v1::ObjectChange, Status>> + Send {
    let views = WatchStream::new(admin.writer.views());
    let mut known: Option<Arc<Tenant>> = None;
    let batches = views.map(move |view| {
        let mut out = VecDeque::new();
        let snapshot = view.snapshot;
        let Some(after) = snapshot.tenant(&caller.tenant).cloned() else { return out };
        if let Some(why) = view.quarantine {
            out.push_back(Err(Status::unavailable(format!("this controller has stopped reading the log at {why}"))));
            return out;
        }
        if !kinds.iter().all(|kind| admin.permits.permits(&caller.now(&snapshot), *kind, Verb::Read)) {
            out.push_back(Err(Status::permission_denied("your role was withdrawn")));
            return out;
        }
        let before = known.replace(after.clone());
        let begins = before.is_none();
        let before = before.unwrap_or_default();
        for kind in &kinds {
            let position = snapshot.position(kind.stream());
            let keys = before.differing(&after, *kind);
            out.extend(keys.iter().filter_map(|key| change(&before, &after, key, position)).map(Ok));
        }
        if begins {
            out.push_back(Ok(v1::ObjectChange { position: snapshot.config, ..Default::default() }));
        }
        out
    });
    let mut over = false;
    batches.flat_map(stream::iter).take_while(move |it| {
        let goes_on = !over;
        over = it.is_err();
        std::future::ready(goes_on)
    })
}

fn change(before: &Tenant, after: &Arc<Tenant>, key: &ObjectKey, position: u64) -> Option<v1::ObjectChange> {
    let (was, is) = (before.get(key), after.get(key));
    let happened = match (&was, &is) {
        (None, Some(_)) => v1::Happened::Created,
        (Some(_), Some(_)) => v1::Happened::Changed,
        (Some(_), None) => v1::Happened::Removed,
        (None, None) => return None,
    };
    let (object, version) = is.or(was)?;
    let object = Some(shown(after, &object, version, &Statuses::new()));
    Some(v1::ObjectChange { happened: happened.into(), object, position })
}
