package dev.sluice.upstream;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.rest.server.RestfulServer;
import java.net.InetSocketAddress;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.hl7.fhir.r4.model.Condition;
import org.hl7.fhir.r4.model.Consent;
import org.hl7.fhir.r4.model.Encounter;
import org.hl7.fhir.r4.model.Observation;
import org.hl7.fhir.r4.model.Organization;
import org.hl7.fhir.r4.model.Patient;
import org.hl7.fhir.r4.model.Practitioner;
import org.hl7.fhir.r4.model.Resource;

/**
 * Arguments: the file that holds the state, the port (0 for any), and the {@link Hold}. Prints one line, {"port": N}, once
 * it answers on the loopback. Ends with its standard input, so that it never outlives the test that started it.
 */
public final class Main {
  private static final List<Class<? extends Resource>> TYPES =
      List.of(
          Condition.class,
          Consent.class,
          Encounter.class,
          Observation.class,
          Organization.class,
          Patient.class,
          Practitioner.class);

  private Main() {}

  public static void main(String[] args) throws Exception {
    FhirContext context = FhirContext.forR4();
    State state = new State(context, Path.of(args[0]), Hold.parse(args[2]));
    List<Object> providers = new ArrayList<>();
    providers.add(new Transactions(state));
    TYPES.forEach(type -> providers.add(new Resources<>(type, state)));
    RestfulServer fhir = new RestfulServer(context);
    fhir.registerProviders(providers);

    Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(args[1])));
    ServletContextHandler handler = new ServletContextHandler();
    handler.addServlet(new ServletHolder(fhir), "/fhir/*");
    server.setHandler(handler);
    server.start();
    System.out.println("{\"port\": " + ((ServerConnector) server.getConnectors()[0]).getLocalPort() + "}");

    while (System.in.read() >= 0) {}
    Runtime.getRuntime().halt(0);
  }
}
