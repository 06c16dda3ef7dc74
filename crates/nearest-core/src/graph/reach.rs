//! Which rows a walk can come to, and links to those that it could not.

use super::NONE;
use crate::column::Row;

/// Marks the rows that links lead to from `starts`; gives how many are new.
pub fn reach(links: &[Row], degree: usize, starts: &[Row], reached: &mut [bool]) -> usize {
    let mut todo: Vec<Row> = Vec::new();
    let mut n = 0;
    let mut come = |row: Row, todo: &mut Vec<Row>, reached: &mut [bool]| {
        if !std::mem::replace(&mut reached[row as usize], true) {
            n += 1;
            todo.push(row);
        }
    };
    starts.iter().for_each(|&row| come(row, &mut todo, reached));
    while let Some(row) = todo.pop() {
        let of_row = &links[row as usize * degree..][..degree];
        of_row.iter().take_while(|&&link| link != NONE).for_each(|&link| come(link, &mut todo, reached));
    }
    n
}

/// Links every row that `hubs` do not lead to from one near it that has room; where none has, it becomes a hub.
///
/// Copies of one vector are such rows: no more than one of them is chosen by any other row. `near` gives rows near a row,
/// nearest first.
pub fn connect(links: &mut [Row], degree: usize, hubs: &mut Vec<Row>, near: impl Fn(Row, &mut Vec<Row>)) {
    let n = links.len() / degree;
    let mut reached = vec![false; n];
    if reach(links, degree, hubs, &mut reached) == n {
        return;
    }
    let mut around = Vec::new();
    for row in 0..n as Row {
        if reached[row as usize] {
            continue;
        }
        around.clear();
        near(row, &mut around);
        let room = around.iter().copied().filter(|&other| reached[other as usize]).find_map(|other| {
            let of_other = other as usize * degree;
            let free = links[of_other..of_other + degree].iter().position(|&link| link == NONE)?;
            Some(of_other + free)
        });
        match room {
            Some(place) => links[place] = row,
            None => hubs.push(row),
        }
        reach(links, degree, &[row], &mut reached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_reached_afterwards() {
        // Two links a row; rows 4 to 6 know of each other alone, 7 of nobody, and all rows are full but 2.
        let mut links = vec![1, 2, 0, 2, 0, NONE, 0, 1, 5, 6, 4, 6, 4, 5, NONE, NONE];
        let mut hubs = vec![3];
        connect(&mut links, 2, &mut hubs, |row, out| {
            out.extend(match row {
                4 => vec![5, 6, 0, 2],
                _ => vec![1, 0],
            });
        });
        assert_eq!(links[5], 4, "row 2 has room");
        assert_eq!(hubs, [3, 7], "nobody near row 7 has");
        let mut reached = [false; 8];
        assert_eq!(reach(&links, 2, &hubs, &mut reached), 8);
    }
}
