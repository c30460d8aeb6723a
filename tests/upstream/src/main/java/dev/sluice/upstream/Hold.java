package dev.sluice.upstream;

import java.util.concurrent.atomic.AtomicInteger;

/**
 * Where a write is held up: before or after the nth commit, for so many milliseconds. Says "held" on standard output when
 * it is, so that a test knows when to kill the process.
 */
final class Hold {
  enum Moment {
    BEFORE,
    AFTER
  }

  private final Moment moment;
  private final int nth;
  private final long millis;
  private final AtomicInteger commits = new AtomicInteger();

  private Hold(Moment moment, int nth, long millis) {
    this.moment = moment;
    this.nth = nth;
    this.millis = millis;
  }

  /** "none", or "before:1:3000". */
  static Hold parse(String text) {
    if (text.equals("none")) {
      return new Hold(Moment.BEFORE, 0, 0);
    }
    String[] parts = text.split(":");
    return new Hold(Moment.valueOf(parts[0].toUpperCase()), Integer.parseInt(parts[1]), Long.parseLong(parts[2]));
  }

  void before() {
    commits.incrementAndGet();
    at(Moment.BEFORE);
  }

  void after() {
    at(Moment.AFTER);
  }

  private void at(Moment now) {
    if (now != moment || commits.get() != nth) {
      return;
    }
    System.out.println("held");
    try {
      Thread.sleep(millis);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
  }
}
