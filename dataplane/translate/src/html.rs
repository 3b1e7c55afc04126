//! Pages: the attributes that hold URLs, styles, and scripts where asked.

use std::sync::{Arc, Mutex, PoisonError};

use lol_html::{
    AsciiCompatibleEncoding, MemorySettings,
    errors::RewritingError,
    html_content::{ContentType, TextChunk},
    send::{Element, HtmlRewriter, Settings},
};
use model::{http_rules::Translate, url_map::UrlMap};

use crate::{TranslateError, scanner::Scanner, text};

/// A tag longer than this ends the translation, and the rest passes as it is.
const MEMORY_BYTES_MAX: usize = 1024 * 1024;

type Out = Arc<Mutex<Vec<u8>>>;

pub(crate) struct Html {
    rewriter: Option<HtmlRewriter<'static, Sink>>,
    out: Out,
}

struct Sink(Out);

impl lol_html::OutputSink for Sink {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(chunk);
    }
}

impl Html {
    pub(crate) fn new(encoding: AsciiCompatibleEncoding, links: UrlMap, depth: Translate) -> Self {
        let everything = depth == Translate::Everything;
        let inside = Arc::new(Mutex::new(Scanner::default()));
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(MEMORY_BYTES_MAX)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let in_attributes = links.clone();
        let settings = Settings::new_send()
            .with_encoding(encoding)
            .with_memory_settings(memory)
            .with_strict(false)
            .with_adjust_charset_on_meta_tag(true)
            .append_element_content_handler(lol_html::element!("*", move |element| {
                attributes(element, &in_attributes, everything);
                Ok(())
            }))
            .append_element_content_handler(in_text("style", &inside, &links));
        let settings = match everything {
            true => settings.append_element_content_handler(in_text("script", &inside, &links)),
            false => settings,
        };
        // What the scanner holds when the rewriter gives up goes out first.
        let settings = settings.append_bail_out_handler(lol_html::bail_out!(move |_error, rest| {
            let held = flush(&inside, &links);
            rest.append(&held, ContentType::Html);
        }));
        let out = Out::default();
        Self { rewriter: Some(HtmlRewriter::new(settings, Sink(out.clone()))), out }
    }

    pub(crate) fn push(&mut self, plain: &[u8]) -> Result<Vec<u8>, TranslateError> {
        match &mut self.rewriter {
            Some(rewriter) => match rewriter.write(plain) {
                Ok(()) => {}
                // It has written everything it was given.
                Err(RewritingError::MemoryLimitExceeded(_)) => self.rewriter = None,
                Err(error) => return Err(TranslateError::Html(error)),
            },
            None => return Ok(plain.to_vec()),
        }
        Ok(self.written())
    }

    pub(crate) fn end(&mut self) -> Result<Vec<u8>, TranslateError> {
        if let Some(rewriter) = self.rewriter.take() {
            match rewriter.end() {
                Ok(()) | Err(RewritingError::MemoryLimitExceeded(_)) => {}
                Err(error) => return Err(TranslateError::Html(error)),
            }
        }
        Ok(self.written())
    }

    fn written(&self) -> Vec<u8> {
        std::mem::take(&mut self.out.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

type Handlers = lol_html::send::ElementContentHandlers<'static>;

/// The text of an element, through the scanner.
fn in_text(
    selector: &'static str,
    inside: &Arc<Mutex<Scanner>>,
    links: &UrlMap,
) -> (std::borrow::Cow<'static, lol_html::Selector>, Handlers) {
    let (inside, links) = (inside.clone(), links.clone());
    lol_html::text!(selector, move |chunk: &mut TextChunk<'_>| {
        let mut out = Vec::new();
        let mut scanner = inside.lock().unwrap_or_else(PoisonError::into_inner);
        scanner.push(&links, chunk.as_str().as_bytes(), chunk.last_in_text_node(), &mut out);
        // Only ASCII is replaced and held, so what is left is text.
        if let Ok(out) = String::from_utf8(out) {
            chunk.set_str(out);
        }
        Ok(())
    })
}

fn flush(inside: &Arc<Mutex<Scanner>>, links: &UrlMap) -> String {
    let mut out = Vec::new();
    inside.lock().unwrap_or_else(PoisonError::into_inner).push(links, b"", true, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

fn attributes(element: &mut Element<'_, '_>, links: &UrlMap, everything: bool) {
    if element.attributes().is_empty() {
        return;
    }
    let tag = element.tag_name();
    let mut changes = Vec::new();
    for attribute in element.attributes() {
        let name = attribute.name();
        let changed = match holds(&tag, &name, everything) {
            Holds::Nothing => None,
            Holds::Url => {
                let value = attribute.value();
                let trimmed = value.trim_start();
                let space = &value[..value.len() - trimmed.len()];
                links.external(trimmed).map(|it| format!("{space}{it}"))
            }
            Holds::Text => text(links, &attribute.value()),
        };
        changes.extend(changed.map(|it| (name, it)));
    }
    for (name, value) in changes {
        // The name came from the page itself.
        let _valid = element.set_attribute(&name, &value);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// One URL and nothing else.
    Url,
    /// URLs among other things.
    Text,
}

/// The list of PUB-27, and what it leaves out.
fn holds(tag: &str, attribute: &str, everything: bool) -> Holds {
    let url = match attribute {
        "style" | "srcset" | "imagesrcset" | "ping" => return Holds::Text,
        "content" if tag == "meta" => return Holds::Text,
        "archive" if tag == "object" => return Holds::Text,
        "srcdoc" if tag == "iframe" => return Holds::Text,
        "xlink:href" | "data-src" | "data-background" | "data-href" | "data-url" => true,
        "href" => matches!(tag, "a" | "area" | "base" | "link" | "use" | "image"),
        "src" => matches!(
            tag,
            "audio" | "embed" | "frame" | "iframe" | "img" | "input" | "script" | "source" | "track" | "video"
        ),
        "action" => tag == "form",
        "formaction" => matches!(tag, "button" | "input"),
        "background" => matches!(tag, "body" | "table" | "td" | "th"),
        "profile" => tag == "head",
        "manifest" => tag == "html",
        "longdesc" => matches!(tag, "iframe" | "img"),
        "value" => tag == "input",
        "icon" => tag == "menuitem",
        "data" | "codebase" => tag == "object",
        "poster" => tag == "video",
        "cite" => matches!(tag, "blockquote" | "q" | "del" | "ins"),
        other => {
            return match everything && (other.starts_with("data-") || other.starts_with("on")) {
                true => Holds::Text,
                false => Holds::Nothing,
            };
        }
    };
    if url { Holds::Url } else { Holds::Nothing }
}
