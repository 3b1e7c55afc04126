//! Errors for administrators: what field, what is wrong, what to do.

use eventlog::wire::FieldError;
use model::Rejection;
use runtime::hashing::HashingError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{passwords::PasswordError, writer::WriteError};

pub(crate) fn invalid(error: FieldError) -> Status {
    field(Code::InvalidArgument, error.field, &error.problem)
}

pub(crate) fn field(code: Code, field: &str, problem: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, problem);
    Status::with_error_details(code, format!("{field}: {problem}"), details)
}

pub(crate) fn password(error: PasswordError) -> Status {
    let code = match error {
        PasswordError::Length => Code::InvalidArgument,
        PasswordError::Hashing(HashingError::Busy) => Code::ResourceExhausted,
        PasswordError::Hashing(HashingError::Failed) => Code::Internal,
    };
    field(code, "password", &error.to_string())
}

pub(crate) fn rejected(rejection: &Rejection) -> Status {
    let code = match rejection {
        Rejection::NotFound(_) => Code::NotFound,
        Rejection::Exists(_)
        | Rejection::NameTaken { .. }
        | Rejection::UrlTaken { .. }
        | Rejection::HostTaken { .. } => Code::AlreadyExists,
        Rejection::InUse { .. } | Rejection::LastOwner | Rejection::Cycle => Code::FailedPrecondition,
        Rejection::TokenSpent | Rejection::Revoked => Code::PermissionDenied,
    };
    field(code, rejection.field(), &format!("{rejection}; {}", rejection.remedy()))
}

pub(crate) fn unwritten(error: WriteError) -> Status {
    match error {
        WriteError::Rejected(rejection) => rejected(&rejection),
        WriteError::Moved { expected, found } => Status::aborted(format!(
            "expected_position: the configuration is at {found}, not at {expected}; read it again and decide anew"
        )),
        WriteError::Contended => {
            Status::aborted("others were changing the configuration all the time; send the request again")
        }
        WriteError::TooLarge => field(Code::InvalidArgument, "request", "is larger than 512 KiB"),
        WriteError::Unknown(_) => Status::unavailable(
            "the event log does not answer and the outcome is unknown; send the request again with the same request_id",
        ),
        WriteError::NotServed { position } => Status::deadline_exceeded(format!(
            "recorded at {position}, but a relay does not serve it yet; nothing needs to be sent again"
        )),
    }
}
