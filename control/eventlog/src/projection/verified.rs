//! Whether an event is believed: signed by a trusted writer, readable, and filed
//! where it says.

use model::{TenantId, event::Stream};
use proto::{
    Message,
    signed::{Hash, Untrusted, Verifier},
    v1::{EventBody, SignedEvent},
};

use super::Refused;
use crate::{
    Entry,
    codec::{Fact, Mark},
};

/// An event that a trusted writer wrote, and that is where it belongs.
pub(super) struct VerifiedEvent {
    pub(super) body: EventBody,
    pub(super) hash: Hash,
    pub(super) said: Said,
}

pub(super) enum Said {
    State(TenantId, model::Event),
    Mark(Mark),
}

impl VerifiedEvent {
    pub(super) fn verify(trust: &mut Verifier, stream: Stream, entry: &Entry) -> Result<Self, Refused> {
        let event = SignedEvent::decode(entry.bytes.clone()).map_err(|_| Untrusted::Malformed)?;
        let (body, hash) = trust.verify(&event)?;
        if let Some(mark) = Mark::decode(&body.kind, &body.payload)? {
            let subject = mark.subject(stream);
            if mark.stream() != stream.name() || subject != body.subject {
                return Err(Refused::Misfiled { said: mark.stream().to_owned(), meant: body.subject });
            }
            if let Mark::Checkpoint(it) = &mark
                && it.position != entry.position
            {
                return Err(Refused::Moved(it.position));
            }
            return Ok(Self { body, hash, said: Said::Mark(mark) });
        }
        let tenant = TenantId::parse(&body.tenant).ok_or_else(|| Refused::Tenant(body.tenant.clone()))?;
        let fact = Fact::decode(&body.kind, &body.payload)?;
        let Fact::State(event) = fact else {
            return Err(Refused::Misfiled { said: body.kind, meant: stream.name().to_owned() });
        };
        let subject = event.subject();
        if subject.stream != stream || subject.path(&tenant) != body.subject {
            return Err(Refused::Misfiled { said: subject.path(&tenant), meant: body.subject });
        }
        Ok(Self { body, hash, said: Said::State(tenant, event) })
    }
}
