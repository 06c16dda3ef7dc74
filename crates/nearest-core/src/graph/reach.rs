//! Which rows a walk can come to, and links to those that it could not.

use super::NONE;
use crate::column::Row;

/// Marks the rows that links lead to from `starts`; gives how many are new.
pub fn reach(links: &[Row], degree: usize, starts: &[Row], reached: &mut [bool]) -> usize {
    let mut todo: Vec<Row> = Vec::new();
    let (mut n, n_rows) = (0, reached.len());
    let mut come = |row: Row, todo: &mut Vec<Row>, reached: &mut [bool]| {
        if !std::mem::replace(&mut reached[row as usize], true) {
            n += 1;
            todo.push(row);
        }
    };
    starts.iter().for_each(|&row| come(row, &mut todo, reached));
    while let Some(row) = todo.pop() {
        let of_row = &links[row as usize * degree..][..degree];
        // Up to [`NONE`], or what a damaged file has.
        let there = of_row.iter().take_while(|&&link| (link as usize) < n_rows);
        there.for_each(|&link| come(link, &mut todo, reached));
    }
    n
}

/// Links every one of `rows` that `hubs` do not lead to from one that it is linked to: where that has no room, its last link
/// goes from the row instead, so that whatever it led to is still led to. Where there is none, the row becomes a hub.
///
/// Copies of one vector are such rows: no more than one of them is chosen by any other row.
pub fn connect(links: &mut [Row], degree: usize, hubs: &mut Vec<Row>, rows: &[Row]) {
    let mut reached = vec![false; links.len() / degree];
    reach(links, degree, hubs, &mut reached);
    for &row in rows {
        if reached[row as usize] {
            continue;
        }
        let own = row as usize * degree;
        let n_own = n_links(&links[own..own + degree]);
        // Not always the nearest: what many rows are linked from would be a long way.
        let turned = (0..n_own).map(|i| links[own + (row as usize + i) % n_own]);
        match turned.into_iter().find(|&other| reached[other as usize]) {
            None => hubs.push(row),
            Some(other) => {
                let of_other = other as usize * degree;
                let n_other = n_links(&links[of_other..of_other + degree]);
                if n_other < degree {
                    links[of_other + n_other] = row;
                } else {
                    let last = std::mem::replace(&mut links[of_other + degree - 1], row);
                    links[own + n_own.min(degree - 1)] = last;
                }
            }
        }
        reach(links, degree, &[row], &mut reached);
    }
}

fn n_links(links: &[Row]) -> usize {
    links.iter().position(|&link| link == NONE).unwrap_or(links.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_row_is_reached_afterwards() {
        // Rows 4 to 6 know of each other alone, and of row 2; 7 of nobody; 2 alone has room.
        let mut links = [
            [1, 2, 3],
            [0, 2, 3],
            [0, 1, NONE],
            [0, 1, 2],
            [5, 6, 2],
            [4, 6, 2],
            [4, 5, 2],
            [NONE, NONE, NONE],
        ]
        .concat();
        let mut hubs = vec![3];
        connect(&mut links, 3, &mut hubs, &[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(links[8], 4, "row 2 has room");
        assert_eq!(hubs, [3, 7], "nobody is linked with row 7");
        assert_eq!(n_reached(&links, 3, &hubs), 8);
    }

    #[test]
    fn rows_without_room_lead_on() {
        // All are full, and everybody is linked to the first rows alone.
        let (n, degree) = (200, 4);
        let mut random = Random::new(1, 0);
        let links = |row: usize| (0..degree).map(move |i| ((row + i + 1) % 5) as Row);
        let mut links: Vec<Row> = (0..n).flat_map(links).collect();
        links[4 * 7] = random.bits() as Row % n as Row;
        let mut hubs = vec![0];
        connect(&mut links, degree, &mut hubs, &(0..n as Row).collect::<Vec<_>>());
        assert_eq!(hubs, [0]);
        assert_eq!(n_reached(&links, degree, &hubs), n);
    }

    fn n_reached(links: &[Row], degree: usize, hubs: &[Row]) -> usize {
        reach(links, degree, hubs, &mut vec![false; links.len() / degree])
    }
}
