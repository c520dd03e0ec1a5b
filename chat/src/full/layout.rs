//! Which part of the screen is for what (pure). The smaller it is the less is shown, the messages and the input last.

use ratatui::layout::Rect;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Areas {
    /// With the rule beside it, if there is something beside it.
    pub list: Rect,
    pub rule: Rect,
    pub title: Rect,
    pub messages: Rect,
    /// Who is typing, notices.
    pub hint: Rect,
    pub input: Rect,
    pub status: Rect,
}

/// From this width on list and messages stand beside each other.
const BESIDE: u16 = 60;

/// `input_lines`: so many the text needs. `list_first`: on a narrow screen the list is shown in place of the messages.
pub fn areas(width: u16, height: u16, input_lines: impl FnOnce(u16) -> usize, list_first: bool) -> Areas {
    let mut areas = Areas::default();
    let list_width = match width {
        BESIDE.. => (width / 4).clamp(18, 32),
        _ if list_first => width,
        _ => 0,
    };
    let status = u16::from(height >= 4);
    areas.status = Rect::new(0, height.saturating_sub(status), width, status);
    let height = height - status;
    areas.list = Rect::new(0, 0, list_width, height);
    let rule = u16::from(list_width > 0 && list_width < width);
    areas.rule = Rect::new(list_width, 0, rule, height);
    let (x, width) = (list_width + rule, width - list_width - rule);

    let title = u16::from(height >= 7);
    let hint = u16::from(height >= 5);
    areas.title = Rect::new(x, 0, width, title);
    let most = (height / 3).clamp(u16::from(height > 0), 8);
    let input = u16::try_from(input_lines(text_width(width))).unwrap_or(u16::MAX).clamp(most.min(1), most);
    let messages = height.saturating_sub(title + hint + input);
    areas.messages = Rect::new(x, title, width, messages);
    areas.hint = Rect::new(x, title + messages, width, hint);
    areas.input = Rect::new(x, title + messages + hint, width, input);
    areas
}

/// Of the input, without its `> `.
pub fn text_width(width: u16) -> u16 {
    width.saturating_sub(2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_nothing_is_outside_whatever_the_size() {
        for width in 0..130 {
            for height in 0..40 {
                for list_first in [false, true] {
                    let a = areas(width, height, |_| 3, list_first);
                    let all = [a.list, a.rule, a.title, a.messages, a.hint, a.input, a.status];
                    let cells: u32 = all.iter().map(|r| r.area()).sum();
                    assert_eq!(cells, u32::from(width) * u32::from(height), "{width}x{height}: {a:?}");
                    for (i, r) in all.iter().enumerate() {
                        assert!(r.right() <= width && r.bottom() <= height, "{width}x{height}: {a:?}");
                        assert!(
                            all[..i].iter().all(|o| !o.intersects(*r) || o.is_empty() || r.is_empty()),
                            "{width}x{height}: {a:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_messages_and_the_input_come_first() {
        let a = areas(20, 5, |_| 1, false);
        assert_eq!((a.list.area(), a.messages.height, a.input.height, a.status.height), (0, 3, 1, 1));
        let a = areas(100, 30, |_| 1, false);
        assert_eq!((a.list.width, a.title.height, a.messages.height, a.hint.height, a.input.height), (25, 1, 26, 1, 1));
        assert_eq!(areas(100, 30, |_| 99, false).input.height, 8);
    }
}
