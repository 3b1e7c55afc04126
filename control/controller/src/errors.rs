//! Errors for administrators: what field, what is wrong, what to do.

use eventlog::wire::FieldError;
use model::{Refused, Rejection};
use runtime::hashing::HashingError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{activity::NoAnswer, passwords::PasswordError, writer::WriteError};

pub(crate) fn invalid(error: FieldError) -> Status {
    field(Code::InvalidArgument, error.field, &error.problem)
}

pub(crate) fn field(code: Code, field: &str, problem: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, problem);
    Status::with_error_details(code, format!("{field}: {problem}"), details)
}

pub(crate) fn unanswered(why: NoAnswer) -> Status {
    Status::unavailable(why.to_string())
}

/// The same error, with the object it is about.
pub(crate) fn about(object: &str, status: &Status) -> Status {
    let message = format!("{object}: {}", status.message());
    Status::with_details(status.code(), message, status.details().to_vec().into())
}

pub(crate) fn password(error: PasswordError) -> Status {
    let code = match error {
        PasswordError::Length => Code::InvalidArgument,
        PasswordError::Hashing(HashingError::Busy) => Code::ResourceExhausted,
        PasswordError::Hashing(HashingError::Failed) => Code::Internal,
    };
    field(code, "password", &error.to_string())
}

/// A change that a rule forbids, with the object it is about.
pub(crate) fn refused(refused: &Refused) -> Status {
    let status = rejected(&refused.why);
    match (&refused.object, &refused.name) {
        (Some(key), Some(name)) => about(&format!("{} {name}", key.kind().title()), &status),
        _ => status,
    }
}

pub(crate) fn rejected(rejection: &Rejection) -> Status {
    let code = match rejection {
        Rejection::NotFound(_) | Rejection::Dangling { .. } => Code::NotFound,
        Rejection::Broken(broken) => return field(Code::InvalidArgument, broken.field, broken.problem),
        Rejection::Exists(_)
        | Rejection::NameTaken { .. }
        | Rejection::UrlTaken { .. }
        | Rejection::HostTaken { .. } => Code::AlreadyExists,
        Rejection::InUse { .. } | Rejection::LastOwner | Rejection::Cycle => Code::FailedPrecondition,
        Rejection::TokenSpent | Rejection::Revoked => Code::PermissionDenied,
    };
    let remedy = rejection.remedy().map_or(String::new(), |it| format!("; {it}"));
    field(code, rejection.field(), &format!("{rejection}{remedy}"))
}

pub(crate) fn unwritten(error: WriteError) -> Status {
    match error {
        WriteError::Rejected(it) => rejected(&it.why),
        WriteError::Moved { expected, found } => Status::aborted(format!(
            "expected_position: the configuration is at {found}, not at {expected}; read it again and decide anew"
        )),
        WriteError::Contended => Status::aborted("others were changing the same all the time; send the request again"),
        WriteError::TooLarge => field(Code::InvalidArgument, "request", "is larger than 512 KiB"),
        WriteError::Full => Status::unavailable(
            "the disk of the event log is full and nothing was recorded; make room where it is kept \
             (docs/disk-full.md), then send the request again. Revocations are still taken.",
        ),
        WriteError::Stopped { why } => Status::unavailable(format!(
            "nothing was recorded: this controller has stopped reading the event log at {why}. Ask another \
             controller; if all say so, the log is damaged: see docs/backup.md, \"when a reader has stopped\""
        )),
        WriteError::Unread { stream, position, why } => {
            let stream = stream.name();
            let why = why.map_or("it is late".to_owned(), |why| format!("it has stopped at {why}"));
            Status::deadline_exceeded(format!(
                "recorded at {position} of {stream}, but this controller does not read so far: {why}; \
                 nothing needs to be sent again once that is mended (docs/backup.md)"
            ))
        }
        WriteError::Unknown(_) => Status::unavailable(
            "the event log does not answer and the outcome is unknown; send the request again with the same request_id",
        ),
        WriteError::NotServed { position } => Status::deadline_exceeded(format!(
            "recorded at {position}, but a relay does not serve it yet; nothing needs to be sent again"
        )),
    }
}
