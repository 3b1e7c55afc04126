//! What refusal pages say, in the language of the browser (RFC 9110, section
//! 12.5.4): English, German, French and Spanish. A program gets English.

use http::{HeaderMap, header};
use model::{Requirement, policy::Minutes};
use strict::fields::weighted;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    German,
    French,
    Spanish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Unreadable,
    HeadTooLarge,
    AddressTooLong,
    Misdirected,
    NothingHere,
    SignIn,
    OneMoreStep,
    SignInFailed,
    SignInUnavailable,
    ClockWrong,
    NotAssigned,
    Blocked,
    Unavailable,
    Maintenance,
    TooOften,
    ClientCertificate,
    NoConnector,
    Interrupted,
    NoAnswer,
    TooSlow,
    UploadStopped,
}

/// Title, and what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalText {
    pub title: &'static str,
    pub advice: &'static str,
}

/// What stands before the facts on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels {
    pub code: &'static str,
    pub request: &'static str,
    pub time: &'static str,
    pub help: &'static str,
}

impl Language {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 4] = [Self::English, Self::German, Self::French, Self::Spanish];

    /// The best of what the browser asks for.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Self::English);
        for (tag, weight) in weighted(headers, &header::ACCEPT_LANGUAGE) {
            let primary = tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
            let language = match primary.as_str() {
                "en" => Self::English,
                "de" => Self::German,
                "fr" => Self::French,
                "es" => Self::Spanish,
                _ => continue,
            };
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    /// RFC 5646.
    pub fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
            Self::French => "fr",
            Self::Spanish => "es",
        }
    }

    pub fn labels(self) -> Labels {
        let [code, request, time, help] = match self {
            Self::English => ["Code", "Request", "Time", "Get help"],
            Self::German => ["Code", "Anfrage", "Zeit", "Hilfe"],
            Self::French => ["Code", "Requête", "Heure", "Aide"],
            Self::Spanish => ["Código", "Solicitud", "Hora", "Ayuda"],
        };
        Labels { code, request, time, help }
    }

    /// What a requirement asks, as a sentence for whoever has not satisfied it.
    pub fn asks(self, requirement: Requirement) -> String {
        match requirement {
            Requirement::Mfa => match self {
                Self::English => "This application asks for a second step when you sign in.",
                Self::German => "Diese Anwendung verlangt bei der Anmeldung einen zweiten Schritt.",
                Self::French => "Cette application demande une deuxième étape à la connexion.",
                Self::Spanish => "Esta aplicación pide un segundo paso al iniciar sesión.",
            }
            .to_owned(),
            Requirement::SignInWithin(within) => self.asks_for_sign_in(within),
        }
    }

    fn asks_for_sign_in(self, within: Minutes) -> String {
        let minutes = within.get();
        let (front, (one_hour, hours, of_minutes), end) = match self {
            Self::English => {
                ("This application asks that you signed in within the last ", ("hour", "{} hours", "{} minutes"), ".")
            }
            Self::German => (
                "Diese Anwendung verlangt, dass Sie sich innerhalb der letzten ",
                ("Stunde", "{} Stunden", "{} Minuten"),
                " angemeldet haben.",
            ),
            Self::French => (
                "Cette application demande une connexion datant de moins ",
                ("d’une heure", "de {} heures", "de {} minutes"),
                ".",
            ),
            Self::Spanish => (
                "Esta aplicación pide que haya iniciado sesión en ",
                ("la última hora", "las últimas {} horas", "los últimos {} minutos"),
                ".",
            ),
        };
        let time = match (minutes / 60, minutes % 60) {
            (1, 0) => one_hour.to_owned(),
            (count, 0) => hours.replace("{}", &count.to_string()),
            (_, _) => of_minutes.replace("{}", &minutes.to_string()),
        };
        format!("{front}{time}{end}")
    }
}

impl Message {
    #[rustfmt::skip]
    #[expect(clippy::too_many_lines, reason = "a table: one row for each message")]
    pub fn words(self, language: Language) -> RefusalText {
        let all: [(&'static str, &'static str); 4] = match self {
            Self::Unreadable => [
                ("This request cannot be read", "Go back and try again. If a link brought you here, it is broken."),
                ("Diese Anfrage ist unlesbar", "Gehen Sie zurück und versuchen Sie es noch einmal. Führte ein Link hierher, ist er fehlerhaft."),
                ("Cette requête est illisible", "Revenez en arrière et réessayez. Si un lien vous a conduit ici, il est incorrect."),
                ("No se puede leer esta solicitud", "Vuelva atrás e inténtelo de nuevo. Si llegó por un enlace, está roto."),
            ],
            Self::HeadTooLarge => [
                ("This request is too large", "Clear the cookies of this site and try again."),
                ("Diese Anfrage ist zu groß", "Löschen Sie die Cookies dieser Seite und versuchen Sie es noch einmal."),
                ("Cette requête est trop grande", "Effacez les cookies de ce site et réessayez."),
                ("Esta solicitud es demasiado grande", "Borre las cookies de este sitio e inténtelo de nuevo."),
            ],
            Self::AddressTooLong => [
                ("This address is too long", "Shorten the search or filter and try again."),
                ("Diese Adresse ist zu lang", "Kürzen Sie Suche oder Filter und versuchen Sie es noch einmal."),
                ("Cette adresse est trop longue", "Raccourcissez la recherche ou le filtre et réessayez."),
                ("Esta dirección es demasiado larga", "Acorte la búsqueda o el filtro e inténtelo de nuevo."),
            ],
            Self::Misdirected => [
                ("Wrong connection", "Reload the page."),
                ("Falsche Verbindung", "Laden Sie die Seite neu."),
                ("Mauvaise connexion", "Rechargez la page."),
                ("Conexión equivocada", "Vuelva a cargar la página."),
            ],
            Self::NothingHere => [
                ("There is nothing here", "Check the address. If it is right, ask your administrator."),
                ("Hier ist nichts", "Prüfen Sie die Adresse. Stimmt sie, fragen Sie Ihre Administration."),
                ("Il n’y a rien ici", "Vérifiez l’adresse. Si elle est correcte, demandez à votre administrateur."),
                ("Aquí no hay nada", "Compruebe la dirección. Si es correcta, pregunte a su administrador."),
            ],
            Self::SignIn => [
                ("Please sign in", "Open this address in a browser, or send a token."),
                ("Bitte melden Sie sich an", "Öffnen Sie diese Adresse in einem Browser oder senden Sie ein Token."),
                ("Veuillez vous connecter", "Ouvrez cette adresse dans un navigateur ou envoyez un jeton."),
                ("Inicie sesión", "Abra esta dirección en un navegador o envíe un token."),
            ],
            Self::OneMoreStep => [
                ("One more step", "Open the application in a browser and sign in again. If you see this once more, ask your administrator."),
                ("Ein Schritt fehlt noch", "Öffnen Sie die Anwendung in einem Browser und melden Sie sich noch einmal an. Sehen Sie dies danach wieder, fragen Sie Ihre Administration."),
                ("Encore une étape", "Ouvrez l’application dans un navigateur et connectez-vous à nouveau. Si cette page revient, demandez à votre administrateur."),
                ("Un paso más", "Abra la aplicación en un navegador e inicie sesión de nuevo. Si vuelve a ver esto, pregunte a su administrador."),
            ],
            Self::SignInFailed => [
                ("Sign-in did not complete", "Open the application again to start over."),
                ("Die Anmeldung wurde nicht beendet", "Öffnen Sie die Anwendung noch einmal."),
                ("La connexion n’a pas abouti", "Ouvrez de nouveau l’application pour recommencer."),
                ("No se completó el inicio de sesión", "Abra de nuevo la aplicación para empezar otra vez."),
            ],
            Self::SignInUnavailable => [
                ("Sign-in is unavailable", "Nothing is wrong on your side. Try again in a minute."),
                ("Die Anmeldung ist gerade nicht möglich", "Bei Ihnen ist alles in Ordnung. Versuchen Sie es in einer Minute noch einmal."),
                ("La connexion est indisponible", "Le problème ne vient pas de vous. Réessayez dans une minute."),
                ("El inicio de sesión no está disponible", "No hay ningún problema por su parte. Inténtelo de nuevo en un minuto."),
            ],
            Self::ClockWrong => [
                ("A clock on our side is wrong", "You were signed in, but this server's clock says otherwise. Your administrator has to set it."),
                ("Eine Uhr auf unserer Seite geht falsch", "Ihre Anmeldung ist gelungen, aber die Uhr dieses Servers widerspricht ihr. Ihre Administration muss sie stellen."),
                ("Une horloge de notre côté est déréglée", "Votre connexion a réussi, mais l'horloge de ce serveur dit le contraire. Votre administrateur doit la régler."),
                ("Un reloj de nuestro lado va mal", "Su inicio de sesión se completó, pero el reloj de este servidor dice lo contrario. Su administrador debe ajustarlo."),
            ],
            Self::NotAssigned => [
                ("You have no access to this application", "Ask your administrator to assign it to you."),
                ("Sie haben keinen Zugang zu dieser Anwendung", "Bitten Sie Ihre Administration um Zugang."),
                ("Vous n’avez pas accès à cette application", "Demandez à votre administrateur de vous l’attribuer."),
                ("No tiene acceso a esta aplicación", "Pida a su administrador que se la asigne."),
            ],
            Self::Blocked => [
                ("Your organisation’s policy does not allow this", "Try from another network or device, or ask your administrator."),
                ("Eine Richtlinie Ihrer Organisation erlaubt das nicht", "Versuchen Sie es von einem anderen Netz oder Gerät, oder fragen Sie Ihre Administration."),
                ("La politique de votre organisation ne le permet pas", "Essayez depuis un autre réseau ou appareil, ou demandez à votre administrateur."),
                ("La política de su organización no lo permite", "Pruebe desde otra red o dispositivo, o pregunte a su administrador."),
            ],
            Self::Unavailable => [
                ("Unavailable for a moment", "Nothing is wrong on your side. Try again in a minute."),
                ("Im Moment nicht verfügbar", "Bei Ihnen ist alles in Ordnung. Versuchen Sie es in einer Minute noch einmal."),
                ("Indisponible pour un instant", "Le problème ne vient pas de vous. Réessayez dans une minute."),
                ("No disponible por un momento", "No hay ningún problema por su parte. Inténtelo de nuevo en un minuto."),
            ],
            Self::Maintenance => [
                ("Closed for maintenance", "Your administrators are working on this application. Try again later."),
                ("Wegen Wartung geschlossen", "Ihre Administration arbeitet an dieser Anwendung. Versuchen Sie es später noch einmal."),
                ("Fermé pour maintenance", "Vos administrateurs travaillent sur cette application. Réessayez plus tard."),
                ("Cerrado por mantenimiento", "Sus administradores están trabajando en esta aplicación. Inténtelo más tarde."),
            ],
            Self::ClientCertificate => [
                ("A certificate is needed", "This application opens only to devices with a certificate of your organisation. Close the browser, open it again and choose the certificate, or ask your administrator for one."),
                ("Ein Zertifikat ist nötig", "Diese Anwendung öffnet sich nur Geräten mit einem Zertifikat Ihrer Organisation. Schließen Sie den Browser, öffnen Sie ihn wieder und wählen Sie das Zertifikat, oder bitten Sie Ihre Administration darum."),
                ("Un certificat est nécessaire", "Cette application ne s’ouvre qu’aux appareils munis d’un certificat de votre organisation. Fermez le navigateur, rouvrez-le et choisissez le certificat, ou demandez-en un à votre administrateur."),
                ("Se necesita un certificado", "Esta aplicación solo se abre a dispositivos con un certificado de su organización. Cierre el navegador, ábralo de nuevo y elija el certificado, o pídaselo a su administrador."),
            ],
            Self::TooOften => [
                ("Too many requests", "This application was asked too often. Wait a moment and try again."),
                ("Zu viele Anfragen", "Diese Anwendung wurde zu oft angefragt. Warten Sie einen Augenblick und versuchen Sie es noch einmal."),
                ("Trop de requêtes", "Cette application a été sollicitée trop souvent. Attendez un instant et réessayez."),
                ("Demasiadas solicitudes", "Se ha consultado esta aplicación con demasiada frecuencia. Espere un momento e inténtelo de nuevo."),
            ],
            Self::NoConnector => [
                ("The way to this application is closed", "Its connector is not online. Try again in a minute, then tell your administrator."),
                ("Der Weg zu dieser Anwendung ist unterbrochen", "Ihr Connector ist nicht erreichbar. Versuchen Sie es in einer Minute, dann melden Sie es Ihrer Administration."),
                ("L’accès à cette application est coupé", "Son connecteur n’est pas en ligne. Réessayez dans une minute, puis prévenez votre administrateur."),
                ("El camino a esta aplicación está cerrado", "Su conector no está en línea. Inténtelo en un minuto y después avise a su administrador."),
            ],
            Self::Interrupted => [
                ("The connection was interrupted", "Try again."),
                ("Die Verbindung wurde unterbrochen", "Versuchen Sie es noch einmal."),
                ("La connexion a été interrompue", "Réessayez."),
                ("Se interrumpió la conexión", "Inténtelo de nuevo."),
            ],
            Self::NoAnswer => [
                ("The application does not answer", "Try again in a minute, then tell your administrator."),
                ("Die Anwendung antwortet nicht", "Versuchen Sie es in einer Minute, dann melden Sie es Ihrer Administration."),
                ("L’application ne répond pas", "Réessayez dans une minute, puis prévenez votre administrateur."),
                ("La aplicación no responde", "Inténtelo en un minuto y después avise a su administrador."),
            ],
            Self::TooSlow => [
                ("The application takes too long", "Try again in a minute, then tell your administrator."),
                ("Die Anwendung braucht zu lange", "Versuchen Sie es in einer Minute, dann melden Sie es Ihrer Administration."),
                ("L’application met trop de temps", "Réessayez dans une minute, puis prévenez votre administrateur."),
                ("La aplicación tarda demasiado", "Inténtelo en un minuto y después avise a su administrador."),
            ],
            Self::UploadStopped => [
                ("The upload stopped", "Check your connection and try again."),
                ("Das Hochladen ist stehen geblieben", "Prüfen Sie Ihre Verbindung und versuchen Sie es noch einmal."),
                ("L’envoi s’est arrêté", "Vérifiez votre connexion et réessayez."),
                ("La subida se detuvo", "Compruebe su conexión e inténtelo de nuevo."),
            ],
        };
        let [english, german, french, spanish] = all;
        let (title, advice) = match language {
            Language::English => english,
            Language::German => german,
            Language::French => french,
            Language::Spanish => spanish,
        };
        RefusalText { title, advice }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_browser_says_which_language() {
        let cases = [
            ("", "en"),
            ("de-CH", "de"),
            ("ja, fr;q=0.5", "fr"),
            ("en;q=0.4, es;q=0.9, de;q=0.8", "es"),
            ("de;q=0", "en"),
            ("DE", "de"),
            ("xx;q=oops, fr", "fr"),
        ];
        for (asked, tag) in cases {
            let headers = HeaderMap::from_iter([(header::ACCEPT_LANGUAGE, HeaderValue::from_static(asked))]);
            assert_eq!(Language::of(&headers).tag(), tag, "{asked}");
        }
    }

    #[test]
    fn every_language_says_something_of_its_own() {
        for language in Language::ALL {
            for other in Language::ALL.into_iter().filter(|it| *it != language) {
                assert_ne!(Message::Blocked.words(language), Message::Blocked.words(other));
                assert_ne!(language.labels(), other.labels());
            }
        }
    }
}
