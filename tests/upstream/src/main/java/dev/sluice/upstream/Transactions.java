package dev.sluice.upstream;

import ca.uhn.fhir.rest.annotation.Transaction;
import ca.uhn.fhir.rest.annotation.TransactionParam;
import ca.uhn.fhir.rest.server.exceptions.BaseServerResponseException;
import ca.uhn.fhir.rest.server.exceptions.InvalidRequestException;
import java.util.List;
import org.hl7.fhir.r4.model.Bundle;
import org.hl7.fhir.r4.model.Bundle.BundleEntryComponent;
import org.hl7.fhir.r4.model.Bundle.BundleEntryRequestComponent;
import org.hl7.fhir.r4.model.Bundle.BundleEntryResponseComponent;
import org.hl7.fhir.r4.model.Bundle.BundleType;

/** Transactions, which are done whole or not at all, and batches, entry by entry. */
public final class Transactions {
  private final State state;

  Transactions(State state) {
    this.state = state;
  }

  @Transaction
  public Bundle transaction(@TransactionParam Bundle asked) {
    Bundle answer = new Bundle();
    if (asked.getType() == BundleType.TRANSACTION) {
      answer.setType(BundleType.TRANSACTIONRESPONSE);
      List<State.Ask> asks = asked.getEntry().stream().map(Transactions::ask).toList();
      state.write(asks).forEach(place -> told(answer, place));
      return answer;
    }
    answer.setType(BundleType.BATCHRESPONSE);
    for (BundleEntryComponent entry : asked.getEntry()) {
      try {
        told(answer, state.write(List.of(ask(entry))).get(0));
      } catch (BaseServerResponseException error) {
        answer.addEntry().getResponse().setStatus(Integer.toString(error.getStatusCode()));
      }
    }
    return answer;
  }

  private static State.Ask ask(BundleEntryComponent entry) {
    BundleEntryRequestComponent request = entry.getRequest();
    String[] url = request.getUrl().split("/");
    boolean post =
        switch (request.getMethod()) {
          case POST -> true;
          case PUT -> false;
          default -> throw new InvalidRequestException("POST and PUT are done here");
        };
    String version = request.hasIfMatch() ? request.getIfMatch().replaceAll("^W/\"|\"$", "") : null;
    String condition = request.hasIfNoneExist() ? request.getIfNoneExist() : null;
    return new State.Ask(url[0], post ? null : url[1], condition, version, entry.getFullUrl(), entry.getResource());
  }

  private static void told(Bundle answer, State.Place place) {
    BundleEntryResponseComponent response = answer.addEntry().getResponse();
    response.setStatus(place.status() == 201 ? "201 Created" : "200 OK");
    response.setLocation(place.path() + "/_history/" + place.version());
    response.setEtag("W/\"" + place.version() + "\"");
    response.setLastModified(place.written());
  }
}
