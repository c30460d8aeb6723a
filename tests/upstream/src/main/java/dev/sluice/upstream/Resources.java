package dev.sluice.upstream;

import ca.uhn.fhir.rest.annotation.ConditionalUrlParam;
import ca.uhn.fhir.rest.annotation.Create;
import ca.uhn.fhir.rest.annotation.IdParam;
import ca.uhn.fhir.rest.annotation.OptionalParam;
import ca.uhn.fhir.rest.annotation.Read;
import ca.uhn.fhir.rest.annotation.ResourceParam;
import ca.uhn.fhir.rest.annotation.Search;
import ca.uhn.fhir.rest.annotation.Update;
import ca.uhn.fhir.rest.api.MethodOutcome;
import ca.uhn.fhir.rest.param.TokenParam;
import ca.uhn.fhir.rest.server.IResourceProvider;
import java.util.ArrayList;
import java.util.List;
import org.hl7.fhir.instance.model.api.IBaseResource;
import org.hl7.fhir.instance.model.api.IIdType;
import org.hl7.fhir.r4.model.Identifier;
import org.hl7.fhir.r4.model.Property;
import org.hl7.fhir.r4.model.IdType;
import org.hl7.fhir.r4.model.Resource;

/** Create, conditional create, update, read, and search by tag and by identifier, of one type. */
public final class Resources<T extends IBaseResource> implements IResourceProvider {
  private final Class<T> type;
  private final State state;

  Resources(Class<T> type, State state) {
    this.type = type;
    this.state = state;
  }

  @Override
  public Class<T> getResourceType() {
    return type;
  }

  @Create
  public MethodOutcome create(@ResourceParam T resource, @ConditionalUrlParam String condition) {
    Resource told = (Resource) resource;
    return outcome(new State.Ask(told.fhirType(), null, condition, null, null, told));
  }

  @Update
  public MethodOutcome update(@IdParam IIdType id, @ResourceParam T resource) {
    Resource told = (Resource) resource;
    return outcome(new State.Ask(told.fhirType(), id.getIdPart(), null, id.getVersionIdPart(), null, told));
  }

  @Read
  @SuppressWarnings("unchecked")
  public T read(@IdParam IIdType id) {
    return (T) state.read(type.getSimpleName() + "/" + id.getIdPart());
  }

  @Search
  public List<IBaseResource> search(
      @OptionalParam(name = "_tag") TokenParam tag, @OptionalParam(name = "identifier") TokenParam identifier) {
    return new ArrayList<>(
        state.search(
            type.getSimpleName(),
            it ->
                (tag == null || it.getMeta().getTag(tag.getSystem(), tag.getValue()) != null)
                    && (identifier == null || has(it, identifier))));
  }

  private static boolean has(Resource resource, TokenParam wanted) {
    Property identifiers = resource.getNamedProperty("identifier");
    return identifiers != null
        && identifiers.getValues().stream()
            .map(Identifier.class::cast)
            .anyMatch(it -> wanted.getSystem().equals(it.getSystem()) && wanted.getValue().equals(it.getValue()));
  }

  private MethodOutcome outcome(State.Ask ask) {
    State.Place place = state.write(List.of(ask)).get(0);
    MethodOutcome outcome = new MethodOutcome();
    outcome.setId(new IdType(place.type(), place.id(), Long.toString(place.version())));
    outcome.setCreated(place.status() == 201);
    return outcome;
  }
}
