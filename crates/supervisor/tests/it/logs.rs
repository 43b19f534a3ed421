//! Log lines: stored, dated, shown, bounded.

use sundew_supervisor::api::{LogsRequest, Stream, Target};
use sundew_supervisor::ecosystem::{AppConfig, LogFile};

use crate::house::{House, until};

#[tokio::test]
async fn stored_lines_come_first_then_new_ones() {
    let house = House::new().await;
    let text = "echo old; echo wrong >&2; while [ ! -e go ]; do sleep 0.02; done; echo new; exec sleep 600";
    let app = AppConfig { log_date_format: Some("[stamp]".to_owned()), ..house.script("app", text) };
    house.start(app).await.unwrap();
    until("it wrote", async || house.stored("app-error-0.log") == "stamp: wrong\n").await;
    until("it wrote", async || house.stored("app-out-0.log") == "stamp: old\n").await;
    let request = LogsRequest { target: Target::parse(["app"]), lines: 10, follow: true };
    let mut lines = house.client.logs(&request).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let line = lines.next().await.unwrap().unwrap();
        seen.push((line.stream, line.text));
    }
    assert_eq!(seen, [(Stream::Out, "stamp: old".to_owned()), (Stream::Err, "stamp: wrong".to_owned())]);
    std::fs::write(house.folder.join("go"), "").unwrap();
    let line = lines.next().await.unwrap().unwrap();
    assert_eq!((line.text.as_str(), line.pm_id), ("stamp: new", Some(0)));
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_process() {
    let house = House::new().await;
    let text = "i=0; while [ $i -lt 2000 ]; do echo 'a line of some length for the disk'; i=$((i+1)); done; touch done; exec sleep 600";
    let app = AppConfig {
        out_file: LogFile::Path("/dev/full".into()),
        merge_logs: true,
        ..house.script("full", text)
    };
    house.start(app).await.unwrap();
    until("it is done", async || house.folder.join("done").exists()).await;
    until("all is counted", async || house.process(0).await.sundew.log_lines_lost == 2000).await;
}

#[tokio::test]
async fn the_last_words_are_stored() {
    let house = House::new().await;
    let app = AppConfig { autorestart: false, ..house.script("last", "printf 'no line end'; exit 0") };
    house.start(app).await.unwrap();
    until("it is stored", async || house.stored("last-out-0.log") == "no line end\n").await;
}
