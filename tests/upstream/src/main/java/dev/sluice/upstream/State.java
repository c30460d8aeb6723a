package dev.sluice.upstream;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.rest.server.exceptions.InvalidRequestException;
import ca.uhn.fhir.rest.server.exceptions.PreconditionFailedException;
import ca.uhn.fhir.rest.server.exceptions.ResourceNotFoundException;
import ca.uhn.fhir.rest.server.exceptions.ResourceVersionConflictException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Predicate;
import org.hl7.fhir.r4.model.Identifier;
import org.hl7.fhir.r4.model.Property;
import org.hl7.fhir.r4.model.Reference;
import org.hl7.fhir.r4.model.Resource;

/**
 * What stands on the server: the current version of each resource, one JSON line each in a file that is replaced whole.
 * That replacement is the commit. References must lead to something, as a hospital's server demands.
 */
final class State {
  /** What is asked for one resource. */
  record Ask(String type, String id, String condition, String ifMatch, String fullUrl, Resource resource) {}

  /** Where it stands then. */
  record Place(int status, String type, String id, long version, Date written) {
    String path() {
      return type + "/" + id;
    }
  }

  private final FhirContext context;
  private final Path file;
  private final Hold hold;
  private volatile TreeMap<String, Resource> stands = new TreeMap<>();

  State(FhirContext context, Path file, Hold hold) throws IOException {
    this.context = context;
    this.file = file;
    this.hold = hold;
    if (Files.exists(file)) {
      for (String line : Files.readAllLines(file)) {
        Resource resource = (Resource) context.newJsonParser().parseResource(line);
        stands.put(path(resource), resource);
      }
    }
  }

  Resource read(String path) {
    Resource found = stands.get(path);
    if (found == null) {
      throw new ResourceNotFoundException("nothing stands there");
    }
    return found;
  }

  List<Resource> search(String type, Predicate<Resource> wanted) {
    return stands.values().stream().filter(it -> it.fhirType().equals(type)).filter(wanted).toList();
  }

  /** All of it, or nothing. */
  synchronized List<Place> write(List<Ask> asks) {
    TreeMap<String, Resource> next = new TreeMap<>(stands);
    List<Place> places = new ArrayList<>();
    Map<String, String> names = new HashMap<>();
    for (Ask ask : asks) {
      Place place = place(ask, next, next.size() + places.size());
      places.add(place);
      if (ask.fullUrl() != null) {
        names.put(ask.fullUrl(), place.path());
      }
    }
    for (int at = 0; at < asks.size(); at++) {
      Place place = places.get(at);
      if (found(asks.get(at), place)) {
        continue;
      }
      Resource resource = asks.get(at).resource().copy();
      resource.setId(place.type() + "/" + place.id() + "/_history/" + place.version());
      resource.getMeta().setVersionId(Long.toString(place.version())).setLastUpdated(place.written());
      next.put(place.path(), resource);
    }
    for (int at = 0; at < asks.size(); at++) {
      if (!found(asks.get(at), places.get(at))) {
        resolve(next.get(places.get(at).path()), names, next);
      }
    }
    hold.before();
    commit(next);
    stands = next;
    hold.after();
    return places;
  }

  /** A conditional create that found its resource writes nothing. */
  private static boolean found(Ask ask, Place place) {
    return ask.condition() != null && place.status() == 200;
  }

  private Place place(Ask ask, TreeMap<String, Resource> next, int number) {
    Date now = new Date();
    if (ask.id() != null) {
      Resource before = next.get(ask.type() + "/" + ask.id());
      if (ask.ifMatch() != null && (before == null || !ask.ifMatch().equals(before.getMeta().getVersionId()))) {
        throw new ResourceVersionConflictException("another version stands there");
      }
      long version = before == null ? 1 : Long.parseLong(before.getMeta().getVersionId()) + 1;
      return new Place(before == null ? 201 : 200, ask.type(), ask.id(), version, now);
    }
    if (ask.condition() != null) {
      List<Resource> found = search(ask.type(), identified(ask.condition()));
      if (found.size() > 1) {
        throw new PreconditionFailedException("several match");
      }
      if (found.size() == 1) {
        Resource one = found.get(0);
        long version = Long.parseLong(one.getMeta().getVersionId());
        return new Place(200, ask.type(), one.getIdElement().getIdPart(), version, one.getMeta().getLastUpdated());
      }
    }
    return new Place(201, ask.type(), "up-" + (number + 1), 1, now);
  }

  private void resolve(Resource resource, Map<String, String> names, TreeMap<String, Resource> next) {
    for (Reference reference : context.newTerser().getAllPopulatedChildElementsOfType(resource, Reference.class)) {
      String text = reference.getReference();
      if (text == null || text.startsWith("#")) {
        continue;
      }
      if (names.containsKey(text)) {
        reference.setReference(names.get(text));
      } else if (text.contains("?")) {
        String type = text.substring(0, text.indexOf('?'));
        List<Resource> found =
            next.values().stream().filter(it -> it.fhirType().equals(type)).filter(identified(text)).toList();
        if (found.size() != 1) {
          throw new PreconditionFailedException("a conditional reference leads to " + found.size());
        }
        reference.setReference(path(found.get(0)));
      } else if (!next.containsKey(text)) {
        throw new InvalidRequestException("a reference leads nowhere");
      }
    }
  }

  /** "[Type?]identifier=system|value". */
  private static Predicate<Resource> identified(String query) {
    String[] token = query.substring(query.indexOf('=') + 1).replace("%7C", "|").split("\\|");
    return resource -> {
      Property identifiers = resource.getNamedProperty("identifier");
      return identifiers != null
          && identifiers.getValues().stream()
              .map(Identifier.class::cast)
              .anyMatch(it -> token[0].equals(it.getSystem()) && token[1].equals(it.getValue()));
    };
  }

  private void commit(TreeMap<String, Resource> next) {
    StringBuilder text = new StringBuilder();
    next.values().forEach(it -> text.append(context.newJsonParser().encodeResourceToString(it)).append('\n'));
    Path temporary = file.resolveSibling(file.getFileName() + ".new");
    try {
      Files.writeString(temporary, text, StandardCharsets.UTF_8);
      try (FileChannel channel = FileChannel.open(temporary, StandardOpenOption.WRITE)) {
        channel.force(true);
      }
      Files.move(temporary, file, StandardCopyOption.ATOMIC_MOVE);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }

  private static String path(Resource resource) {
    return resource.fhirType() + "/" + resource.getIdElement().getIdPart();
  }
}
