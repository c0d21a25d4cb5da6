//! Where everything stands on the screen. This module puts a [`Screen`] onto cells; it fits from 40 columns on, and is
//! made for 80x24.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row as Cells, StatefulWidget, Table, TableState, Widget};

use super::row::{Row, span};
use super::screen::{Link, Screen};
use crate::domain::time::Timestamp;

/// Rows above the first process: two of the header, one of column names.
pub(super) const HEAD_ROWS: u16 = 3;

const COLUMNS: [&str; 7] = ["PROCESS", "STATUS", "STEP", "PROGRESS", "ETA", "AGE", "%/MIN"];
/// Statuses in the order of the header: what does not fit at its end is what worries least.
const COUNTED: [&str; 8] =
    ["RUNNING", "EXPIRED", "FAILED", "PAUSED", "ACTIVE", "REGISTERED", "COMPLETED", "ARCHIVED"];
/// Members of a status that come first, in this order.
const FIRST: [&str; 12] = [
    "status",
    "reason",
    "current_step",
    "progress_percent",
    "process_name",
    "process_type",
    "run_id",
    "run_no",
    "started_at",
    "last_life_at",
    "deadline_at",
    "estimated_completion",
];

const KEYS: &str = "q quit  arrows move  Enter detail  s sort  / filter  a all/unfinished";
const KEYS_TYPING: &str = "type to filter  Enter keep  Esc drop";
const KEYS_DETAIL: &str = "q quit  arrows other process  Esc back  a all/unfinished";

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// The whole screen.
pub(super) fn frame(screen: &mut Screen, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    if screen.opened.is_some() {
        detail(screen, now, area, buffer);
    } else {
        list(screen, now, area, buffer, true);
    }
}

/// Header, processes and, for a terminal, selection and keys.
pub(super) fn list(
    screen: &mut Screen,
    now: Timestamp,
    area: Rect,
    buffer: &mut Buffer,
    is_live: bool,
) {
    let keys = u16::from(is_live);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(2), Constraint::Fill(1), Constraint::Length(keys)])
            .areas(area);
    header(screen, now).render(head, buffer);
    let offset = table(screen, now, body, buffer, is_live);
    screen.offset = offset;
    if is_live {
        let words = if screen.is_typing { KEYS_TYPING } else { KEYS };
        Line::styled(words, Style::new().add_modifier(Modifier::DIM)).render(foot, buffer);
    }
}

fn header(screen: &Screen, now: Timestamp) -> Paragraph<'static> {
    let counts = COUNTED.iter().filter_map(|status| {
        let count = screen.rows.iter().filter(|row| row.status == *status).count();
        (count > 0).then(|| format!(", {count} {}", status.to_lowercase()))
    });
    let more = if screen.is_cut { "the first " } else { "" };
    let kind = match (screen.all, screen.rows.len()) {
        (true, 1) => "process",
        (true, _) => "processes",
        (false, _) => "unfinished",
    };
    let counts: String = counts.collect();
    let words = format!("{more}{} {kind}{counts}", screen.rows.len());
    let lives = screen.lives_per_s.map(|rate| format!(", {rate:.1} signs of life/s"));
    let lives = lives.unwrap_or_default();
    let mut first = vec![Span::styled("sentinel top", bold()), Span::raw("  ")];
    let filter = match (screen.filter.as_str(), screen.is_typing) {
        ("", false) => String::new(),
        (filter, false) => format!(", filter: {filter}"),
        (filter, true) => format!(", filter: {filter}_"),
    };
    let filter = crate::cli::words::escaped(&filter);
    let second = match &screen.link {
        Link::Connecting => {
            first.push(Span::raw("connecting"));
            Line::raw(screen.url.clone())
        }
        Link::Up => {
            first.push(Span::raw(words));
            Line::raw(format!("{}  by {}{filter}{lives}", screen.url, screen.sort.as_str()))
        }
        Link::Lost { since, why } => {
            let lost = span(now.since(*since));
            first.push(Span::styled(
                format!("CONNECTION LOST {lost} ago, as it was then: {words}"),
                Style::new().fg(Color::Red),
            ));
            Line::styled(why.clone(), Style::new().fg(Color::Red))
        }
    };
    Paragraph::new(vec![Line::from(first), second])
}

fn colour(row: &Row) -> Style {
    match row.status.as_str() {
        "EXPIRED" | "FAILED" => Style::new().fg(Color::Red),
        _ if row.is_stale => Style::new().fg(Color::Yellow),
        "RUNNING" => Style::new().fg(Color::Green),
        _ => Style::new(),
    }
}

/// How the columns share the width. What names a process and its step takes what the numbers leave.
const WIDTHS: [Constraint; 7] = [
    Constraint::Fill(3),
    Constraint::Length(10),
    Constraint::Fill(2),
    Constraint::Length(13),
    Constraint::Length(5),
    Constraint::Length(5),
    Constraint::Length(6),
];

/// So many columns show every cell of the table whole.
pub(super) fn columns_for(screen: &Screen, now: Timestamp) -> u16 {
    let (mut fixed, mut shares, mut share) = (WIDTHS.len() - 1, 0, 0);
    for (at, width) in WIDTHS.iter().enumerate() {
        if let Constraint::Fill(parts) = *width {
            let cells = screen.visible().into_iter().map(|row| row.cells(now)[at].clone());
            let longest = cells.map(|cell| Line::raw(cell).width()).max().unwrap_or(0);
            shares += usize::from(parts);
            share = share.max(longest.div_ceil(usize::from(parts)));
        } else if let Constraint::Length(columns) = *width {
            fixed += usize::from(columns);
        }
    }
    u16::try_from(fixed + shares * share).unwrap_or(u16::MAX)
}

/// Draws the table. Returns its first row.
fn table(screen: &Screen, now: Timestamp, area: Rect, buffer: &mut Buffer, is_live: bool) -> usize {
    let visible = screen.visible();
    let selected = (is_live && !visible.is_empty()).then(|| screen.selected_at(&visible));
    let rows = visible.iter().map(|row| {
        let style = colour(row);
        let cells = row.cells(now).into_iter().enumerate();
        Cells::new(cells.map(|(at, text)| {
            // What has a fixed width is read in columns: numbers stand to the right.
            let line = if at >= 4 { Line::raw(text).right_aligned() } else { Line::raw(text) };
            if at == 1 { Cell::new(line).style(style) } else { Cell::new(line) }
        }))
    });
    let names = COLUMNS.iter().enumerate().map(|(at, name)| {
        let line = Line::raw(*name);
        Cell::new(if at >= 4 { line.right_aligned() } else { line })
    });
    let table = Table::new(rows, WIDTHS)
        .header(Cells::new(names).style(bold()))
        .row_highlight_style(reversed());
    let mut state = TableState::new().with_offset(screen.offset).with_selected(selected);
    StatefulWidget::render(table, area, buffer, &mut state);
    if visible.is_empty() && area.height > 1 {
        let words = match (&screen.link, screen.rows.is_empty()) {
            (Link::Connecting, _) => "",
            (_, true) if screen.all => "there are no processes",
            (_, true) => "nothing is unfinished: a shows all processes",
            (_, false) => "no process passes the filter: Esc drops it",
        };
        let below = Rect { y: area.y + 1, height: 1, ..area };
        Line::raw(words).render(below, buffer);
    }
    state.offset()
}

/// One process: its status, and what it said last.
fn detail(screen: &Screen, now: Timestamp, area: Rect, buffer: &mut Buffer) {
    let Some(detail) = &screen.detail else {
        let [head, body] =
            Layout::vertical([Constraint::Length(2), Constraint::Fill(1)]).areas(area);
        header(screen, now).render(head, buffer);
        Line::raw("asking").render(body, buffer);
        return;
    };
    let mut members: Vec<&(String, String)> = detail.members.iter().collect();
    members.sort_by_key(|(name, _)| FIRST.iter().position(|first| first == name).unwrap_or(99));
    let lines = u16::try_from(detail.lines.len().max(1)).unwrap_or(u16::MAX);
    let count = u16::try_from(members.len()).unwrap_or(u16::MAX);
    // The log gets half of the screen, or what the status leaves.
    let free = area.height.saturating_sub(5);
    let log = lines.min((free / 2).max(free.saturating_sub(count)));
    let [head, body, title, said, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(log),
        Constraint::Length(1),
    ])
    .areas(area);
    header(screen, now).render(head, buffer);
    let name = Rect { y: head.y + 2, height: 1, ..head };
    Line::styled(crate::cli::words::escaped(&detail.id), bold()).render(name, buffer);
    let width = members.iter().map(|(name, _)| name.len()).max().unwrap_or(0).min(24);
    let shown = members.iter().filter(|(name, _)| name != "process_id");
    let texts: Vec<Line<'_>> =
        shown.map(|(name, value)| Line::raw(format!("{name:<width$}  {value}"))).collect();
    Paragraph::new(texts).render(body, buffer);
    Line::styled("last log lines", bold()).render(title, buffer);
    let skipped = detail.lines.len().saturating_sub(usize::from(log));
    let texts: Vec<Line<'_>> = if detail.lines.is_empty() {
        vec![Line::raw("it has said nothing")]
    } else {
        detail.lines.iter().skip(skipped).map(|line| Line::raw(line.as_str())).collect()
    };
    Paragraph::new(texts).render(said, buffer);
    Line::styled(KEYS_DETAIL, Style::new().add_modifier(Modifier::DIM)).render(foot, buffer);
}

/// What stands in the cells, line by line, without what is only blank.
pub(super) fn text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.top()..buffer.area.bottom() {
        let mut line = String::new();
        // A letter that is two cells wide is followed by a cell that says nothing.
        let mut skip = 0;
        for x in buffer.area.left()..buffer.area.right() {
            if skip == 0 {
                let symbol = buffer[(x, y)].symbol();
                line.push_str(symbol);
                skip = Span::raw(symbol).width();
            }
            skip = skip.saturating_sub(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
