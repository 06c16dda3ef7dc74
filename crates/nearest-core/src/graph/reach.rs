//! Which rows a walk can come to, and links to those that it could not.

use nearest_kernels::prefetch;

use super::codes::Chunks;
use super::links::Links;
use super::visited::Visited;
use crate::column::Row;
use crate::live::RowSet;

/// Links are asked for so many rows before they are followed.
const AHEAD: usize = 8;

/// Puts rows into `reached` that links lead to from `starts`, and these.
pub fn reach(links: &Chunks<'_, Row>, n_rows: usize, starts: &[Row], reached: &mut Visited) {
    reached.reserve(n_rows);
    let mut rows = Vec::new();
    reached.insert_all(starts, n_rows, &mut rows);
    let mut done = 0;
    while let Some(&row) = rows.get(done) {
        if let Some(&row) = rows.get(done + AHEAD) {
            prefetch(links.row(row));
        }
        reached.insert_all(links.row(row), n_rows, &mut rows);
        done += 1;
    }
}

/// Those of `rows` that were not reached.
pub fn missed<'a>(rows: &'a RowSet, reached: &'a Visited) -> impl Iterator<Item = Row> + 'a {
    rows.iter().filter(|&row| !reached.contains(row))
}

/// Links every one of `rows` that `hubs` do not lead to from one that it is linked to: where that has no room, its last link
/// goes from the row instead, so that whatever it led to is still led to. Where there is none, the row becomes a hub.
///
/// Copies of one vector are such rows: no more than one of them is chosen by any other row.
pub fn connect(links: &mut Links, hubs: &mut Vec<Row>, rows: &RowSet) {
    let (n_rows, mut reached) = (links.n_rows(), Visited::default());
    reach(&links.chunks(), n_rows, hubs, &mut reached);
    let missed: Vec<Row> = missed(rows, &reached).collect();
    for row in missed {
        if reached.contains(row) {
            continue;
        }
        let own = links.of_row(row);
        // Not always the nearest: what many rows are linked from would be a long way.
        let mut turned = (0..own.len()).map(|i| own[(row as usize + i) % own.len()]);
        match turned.find(|&other| reached.contains(other)) {
            None => hubs.push(row),
            Some(other) => {
                let (places, n) = links.places(other);
                if n < places.len() {
                    places[n] = row;
                } else {
                    let last = std::mem::replace(&mut places[n - 1], row);
                    let (places, n) = links.places(row);
                    places[n.min(places.len() - 1)] = last;
                }
            }
        }
        reach(&links.chunks(), n_rows, &[row], &mut reached);
    }
}

#[cfg(test)]
mod tests {
    use super::super::NONE;
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_row_is_reached_afterwards() {
        // Rows 4 to 6 know of each other alone, and of row 2; 7 of nobody; 2 alone has room.
        let mut links = links([
            [1, 2, 3],
            [0, 2, 3],
            [0, 1, NONE],
            [0, 1, 2],
            [5, 6, 2],
            [4, 6, 2],
            [4, 5, 2],
            [NONE, NONE, NONE],
        ]);
        let mut hubs = vec![3];
        connect(&mut links, &mut hubs, &RowSet::first(8));
        assert_eq!(links.of_row(2), [0, 1, 4], "row 2 has room");
        assert_eq!(hubs, [3, 7], "nobody is linked with row 7");
        assert_eq!(n_reached(&links, &hubs), 8);
    }

    #[test]
    fn rows_without_room_lead_on() {
        // All are full, and everybody is linked to the first rows alone.
        const N: usize = 200;
        let mut random = Random::new(1, 0);
        let mut rows: Vec<[Row; 4]> =
            (0..N).map(|row| std::array::from_fn(|i| ((row + i + 1) % 5) as Row)).collect();
        rows[7][0] = random.bits() as Row % N as Row;
        let mut links = links(rows);
        let mut hubs = vec![0];
        connect(&mut links, &mut hubs, &RowSet::first(N));
        assert_eq!(hubs, [0]);
        assert_eq!(n_reached(&links, &hubs), N);
    }

    fn links<const DEGREE: usize>(rows: impl AsRef<[[Row; DEGREE]]>) -> Links {
        Links::of_rows(rows.as_ref())
    }

    fn n_reached(links: &Links, hubs: &[Row]) -> usize {
        let mut reached = Visited::default();
        reach(&links.chunks(), links.n_rows(), hubs, &mut reached);
        (0..links.n_rows() as Row).filter(|&row| reached.contains(row)).count()
    }
}
